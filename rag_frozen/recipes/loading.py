"""Find a recipe, override settings in it, and check it: errors name the file and the place.

Knows YAML and pydantic; the models of the recipes stand beside it.
"""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

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
_GIVE = "Give the name of a recipe or the path of a YAML file."


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
    _check_kind(path, values.get("kind"), model)
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
    if path.suffix in (".yaml", ".yml") or str(name_or_path) != path.name:
        if not path.is_file():
            raise RecipeError(f"{_no_recipe_file(path)} {_GIVE}")
        return path
    for place in _PLACES:
        candidate = place / folder / f"{name_or_path}.yaml"
        if candidate.is_file():
            return candidate
    known = list_recipes(folder)
    near = difflib.get_close_matches(str(name_or_path), known, n=3, cutoff=0.4) or known
    raise RecipeError(
        f"There is no recipe {name_or_path} in {folder}/. There are: {', '.join(near)}. {_GIVE}"
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
    except OSError as error:
        raise RecipeError(
            f"The recipe {path} cannot be read: {error.strerror or error}. Check the file."
        ) from error
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"The recipe {path} is no UTF-8 text: byte {error.start + 1} is "
            f"0x{error.object[error.start]:02x}. Convert it, such as with: "
            "iconv -f LATIN1 -t UTF-8"
        ) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise RecipeError(
            f"The recipe {path} is not well-formed YAML: {_yaml_problem(error)}. Correct it there."
        ) from error
    if not isinstance(values, dict):
        found = "is empty" if values is None else f"holds {type(values).__name__} at the top"
        raise RecipeError(
            f"The recipe {path} {found}; it must be a mapping of fields to values, the first of "
            "them such as kind: pipeline"
        )
    for override in overrides:
        _override(values, override)
    return values


def _no_recipe_file(path: Path) -> str:
    if path.is_dir():
        return f"{path} is a folder, not a recipe file."
    for suffix in (".yaml", ".yml"):
        if path.suffix != suffix and (meant := path.with_name(path.name + suffix)).is_file():
            return f"There is no recipe file {path}; did you mean {meant}?"
    return f"There is no recipe file {path}."


def _check_kind(path: Path, found: object, model: type[BaseModel]) -> None:
    """Refuse a recipe of another kind as such: each of its other fields would be told as wrong."""
    field = model.model_fields.get("kind")
    kinds = get_args(field.annotation) if field is not None else ()
    if kinds and found not in (None, *kinds):
        raise RecipeError(
            f"The recipe {path} is of kind {found!r}; one of kind {' or '.join(kinds)} is needed "
            f"here. {_GIVE}"
        )


def _yaml_problem(error: Exception) -> str:
    """What YAML's parser says in several lines, in one: the line, the column, the problem."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None)
    if mark is None or problem is None:
        return " ".join(str(error).split())
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"


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
        raise RecipeError(f"override {override}: write it as a.b=c, such as reader.model=NAME")
    try:
        value = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise RecipeError(
            f"override {override}: the value is not well-formed YAML: {_yaml_problem(error)}"
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
            raise RecipeError(f"override {override}: {where} is {place!r} and has no fields")
    if isinstance(place, list):
        place[_list_index(place, last, override)] = value
    else:
        place[last] = value


def _list_index(place: list[Any], part: str, override: str) -> int:
    if not part.isdigit() or int(part) >= len(place):
        raise RecipeError(
            f"override {override}: {part} is no place in a list of {len(place)}; count from 0"
        )
    return int(part)
