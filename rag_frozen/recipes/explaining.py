"""What is wrong with a recipe: the line, the place as ``--set`` takes it, the nearest valid field.

Knows pydantic's errors, JSON schema and YAML's nodes; nothing about what recipes mean.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

__all__ = ["explain"]

Schema = dict[str, Any]  # Any: JSON schema
Place = tuple[str | int, ...]
_SHOWN = 80  # characters of a value that a message shows


def explain(
    path: Path, model: type[BaseModel], error: ValidationError, *, overrides: Sequence[str] = ()
) -> str:
    """Return all problems of a recipe, one a line, each with its place in the file."""
    schema = model.model_json_schema()
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, ValueError, yaml.YAMLError):  # changed since it was read: no line numbers
        root = None
    lines = [f"The recipe {path} is wrong:"]
    for problem in error.errors(include_url=False):
        place, _ = _walk(schema, problem["loc"])
        dotted = ".".join(map(str, place)) or "the top"
        said = _said(schema, problem["type"], problem["loc"], problem["msg"], problem["input"])
        lines.append(f"  {_origin(root, place, overrides)}{dotted}: {said}")
    return "\n".join(lines)


def _said(schema: Schema, kind: str, loc: Place, message: str, value: object) -> str:
    if kind == "missing":
        return message
    if kind != "extra_forbidden":
        return f"{message} (found {_shorten(repr(value))})"
    _, parent = _walk(schema, loc[:-1])
    valid = sorted(parent.get("properties", {}))
    near = difflib.get_close_matches(str(loc[-1]), valid, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"valid are {', '.join(valid) or 'none'}"
    return f"there is no such field; {hint}"


def _walk(schema: Schema, loc: Place) -> tuple[Place, Schema]:
    """Follow pydantic's location; return the place in the recipe and the schema found there.

    The location of something in a union holds, after the place of the union, a label of the chosen
    member (its kind or class), which does not stand in the recipe.
    """
    node = _plain(schema, schema)
    place: list[str | int] = []
    for part in loc:
        members = _members(schema, node)
        if members:
            node = next((m for m in members if part in _labels(m)), {})
            continue
        place.append(part)
        if isinstance(part, int):
            fixed = node.get("prefixItems", [])
            node = fixed[part] if part < len(fixed) else node.get("items", {})
        else:
            values = node.get("additionalProperties")
            fallback = values if isinstance(values, dict) else {}
            node = node.get("properties", {}).get(part, fallback)
        node = _plain(schema, node) if isinstance(node, dict) else {}
    return tuple(place), node


def _plain(schema: Schema, node: Schema) -> Schema:
    """Follow references, and a union with null to its other member."""
    while True:
        options = [one for one in node.get("anyOf", ()) if one.get("type") != "null"]
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
        elif len(options) == 1:
            node = options[0]
        else:
            return node


def _members(schema: Schema, node: Schema) -> list[Schema]:
    options = node.get("oneOf") or node.get("anyOf") or ()
    return [_plain(schema, one) for one in options if one.get("type") != "null"]


def _labels(member: Schema) -> set[object]:
    """What pydantic may call a member: a class by its name, in a tagged union by its kinds."""
    labels: set[object] = {member.get("title")}
    for field in member.get("properties", {}).values():
        labels |= {field.get("const"), *field.get("enum", ())}
    return labels - {None}


def _origin(root: yaml.Node | None, place: Place, overrides: Sequence[str]) -> str:
    """Where the value was set: the last override that touches it, else its line in the file."""
    dotted = ".".join(map(str, place))
    for override in reversed(overrides):
        target = override.partition("=")[0]
        if f"{dotted}.".startswith(f"{target}.") or f"{target}.".startswith(f"{dotted}."):
            return f"override {_shorten(override)}: "
    line = 0
    node = root
    for part in place:
        if isinstance(node, yaml.MappingNode):
            pair = next((pair for pair in node.value if pair[0].value == str(part)), None)
            if pair is None:
                break
            key, node = pair
            line = key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            if part >= len(node.value):
                break
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return f"line {line}: " if line else ""


def _shorten(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
