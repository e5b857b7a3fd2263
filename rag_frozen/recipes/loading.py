"""Find a recipe, override settings in it, and check it: errors name the file and the place.

Knows YAML and pydantic; the models of the recipes stand beside it.
"""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from rag_frozen.errors import RecipeError
from rag_frozen.recipes.explaining import explain

__all__ = ["RecipeFolder", "find_recipe", "list_recipes", "load_recipe", "read_recipe"]

RecipeFolder = Literal["indexes", "pipelines", "eval", "pipelines/train"]
Recipe = TypeVar("Recipe", bound=BaseModel)

_PACKAGE = Path(__file__).parent.parent
_PLACES = (_PACKAGE / "_recipes", _PACKAGE.parent)
"""The wheel's copy, then the checkout's folders."""


def load_recipe(
    name_or_path: str | Path,
    model: type[Recipe],
    *,
    folder: RecipeFolder,
    overrides: Sequence[str] = (),
) -> Recipe:
    """Load and check a recipe.

    Args:
        name_or_path: ``pocket``, or the path of a YAML file.
        model: what it must be.
        folder: where names are looked for.
        overrides: ``a.b=c``, the value as YAML; lists by number, ``a.0.b=c``.

    Raises:
        RecipeError: naming the file, every wrong place in it with its line, the value and, for an
            unknown field, the nearest valid one.
    """
    path = find_recipe(name_or_path, folder)
    values = read_recipe(path, overrides=overrides)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise RecipeError(explain(path, model, error, overrides=overrides)) from error


def find_recipe(name_or_path: str | Path, folder: RecipeFolder) -> Path:
    """Return the file of a recipe: an explicit path, else the wheel's, else the checkout's.

    Raises:
        RecipeError: when there is none, with the names nearest to it.
    """
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        if not path.is_file():
            raise RecipeError(f"There is no recipe file {path}.")
        return path
    for place in _PLACES:
        candidate = place / folder / f"{name_or_path}.yaml"
        if candidate.is_file():
            return candidate
    known = list_recipes(folder)
    near = difflib.get_close_matches(str(name_or_path), known, n=3, cutoff=0.4) or known
    raise RecipeError(
        f"There is no recipe {name_or_path} in {folder}/. There are: {', '.join(near)}. "
        "Give one of these names or the path of a YAML file."
    )


def list_recipes(folder: RecipeFolder) -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted({file.stem for place in _PLACES for file in (place / folder).glob("*.yaml")})


def read_recipe(
    path: Path, *, overrides: Sequence[str] = ()
) -> dict[str, Any]:  # Any: not checked yet
    """Read a YAML file as a mapping, with overrides applied.

    Raises:
        RecipeError: when it is not readable, no mapping, or names a field twice.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"The recipe {path} cannot be read: {error}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise RecipeError(f"The recipe {path} is not well-formed YAML: {error}") from error
    if not isinstance(values, dict):
        raise RecipeError(f"The recipe {path} must be a mapping of fields to values.")
    for override in overrides:
        _override(values, override)
    return values


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a field written twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a field's name must be a word", key.start_mark
                )
            if key.value in seen:
                line = key.start_mark.line + 1
                raise yaml.constructor.ConstructorError(
                    None,
                    None,
                    f"the field {key.value!r} stands twice (line {line})",
                    key.start_mark,
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _override(values: dict[str, Any], override: str) -> None:
    path, separator, text = override.partition("=")
    if not separator or not all(path.split(".")):
        raise RecipeError(f"--set {override}: write it as a.b=c, such as --set reader.model=NAME")
    try:
        value = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise RecipeError(
            f"--set {override}: the value is not well-formed YAML: {error}"
        ) from error
    *parents, last = path.split(".")
    place: Any = values
    for depth, part in enumerate(parents):
        where = ".".join(parents[: depth + 1])
        if isinstance(place, list):
            place = place[_list_index(place, part, override)]
        elif isinstance(place, dict):
            if place.get(part) is None:
                place[part] = {}
            place = place[part]
        if not isinstance(place, dict | list):
            raise RecipeError(f"--set {override}: {where} is {place!r} and has no fields")
    if isinstance(place, list):
        place[_list_index(place, last, override)] = value
    else:
        place[last] = value


def _list_index(place: list[Any], part: str, override: str) -> int:
    if not part.isdigit() or int(part) >= len(place):
        raise RecipeError(
            f"--set {override}: {part} is no place in a list of {len(place)}; count from 0"
        )
    return int(part)
