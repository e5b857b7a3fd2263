"""The cells of a grid: each a pipeline's recipe, found before anything is loaded."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rag_frozen.errors import RecipeError
from rag_frozen.recipes.ablation import CLOSED_BOOK, AblationRecipe, AxisName, CellChange
from rag_frozen.recipes.loading import load_recipe
from rag_frozen.recipes.pipeline import ClosedBook, PipelineRecipe

__all__ = ["PACKED", "WITHOUT_PASSAGES", "Cell", "Grid", "make_grid"]

WITHOUT_PASSAGES = ("retrieval={kind: closed-book}", "reranker={kind: none}")
"""Overrides that leave retrieval and reranking out of a pipeline."""
PACKED = "reading={kind: packed}"
"""Leaves out how passages are read: it may ask for scores that a stage alone does not have."""

_PREFIX: Mapping[AxisName, str] = {"depth": "d", "packed": "p"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One pipeline of the grid.

    ``levels`` are (axis, level) pairs; ``overrides`` make its recipe of the base; ``settings`` is
    that recipe.
    """

    name: str
    levels: tuple[tuple[AxisName, str], ...]
    overrides: tuple[str, ...]
    settings: PipelineRecipe

    @property
    def closed_book(self) -> bool:
        """True when it has no passages."""
        return isinstance(self.settings.retrieval, ClosedBook)


@dataclass(frozen=True, slots=True)
class Grid:
    """All cells, in the recipe's order, the baseline among them; ``pipeline`` is their base."""

    pipeline: str
    cells: tuple[Cell, ...]
    baseline: Cell


def make_grid(
    recipe: AblationRecipe, *, pipeline: str | None = None, overrides: Sequence[str] = ()
) -> Grid:
    """Resolve every cell.

    Args:
        recipe: of the ablation.
        pipeline: another base than the recipe's.
        overrides: ``a.b=c``, changes of the base in every cell.

    Raises:
        RecipeError: when the base is no recipe or a cell's settings do not go together, two cells
            are equal, a change picks no cell, or the baseline is none.
    """
    base = pipeline or recipe.pipeline
    plain = load_recipe(base, PipelineRecipe, folder="pipelines", overrides=overrides)
    _refuse_closed_book(recipe, base, plain)
    common = [*overrides, f"reranker={_yaml(plain.reranker.model_dump(mode='json'))}"]
    combined = [*_combinations(recipe), *_closed_book(recipe)]
    _check_changes(recipe, combined)
    cells = []
    for levels in combined:
        changes = [change for change in recipe.cells if _picked(change.where, levels)]
        if any(change.skip for change in changes):
            continue
        cells.append(_cell(recipe, base, levels, common, changes))
    if len(cells) < 2:
        raise RecipeError(
            f"The ablation {recipe.name} has {len(cells)} cells; a comparison needs two or more. "
            "Name several retrievers, rerankers, depths, packed, readings or prompts, or "
            "closed_book: true."
        )
    _refuse_equal(cells)
    return Grid(base, tuple(cells), _baseline(recipe, cells))


Levels = tuple[tuple[AxisName, str], ...]


def _combinations(recipe: AblationRecipe) -> Iterator[Levels]:
    """All levels with all, without the closed-book rows; none where no axis is named."""
    axes = recipe.axes
    if not axes:
        return
    for levels in itertools.product(*axes.values()):
        yield tuple(zip(axes, levels, strict=True))


def _closed_book(recipe: AblationRecipe) -> Iterator[Levels]:
    if not recipe.closed_book:
        return
    if not recipe.axes:
        yield ()  # the base pipeline itself, to be compared with
    for prompt in recipe.axes.get("prompt", (None,)):
        own: Levels = (("retriever", CLOSED_BOOK),)
        yield own if prompt is None else (*own, ("prompt", prompt))


def _picked(where: Mapping[AxisName, str | int], levels: Levels) -> bool:
    found = dict(levels)
    return all(found.get(axis) == str(level) for axis, level in where.items())


def _cell(
    recipe: AblationRecipe,
    base: str,
    levels: Levels,
    common: Sequence[str],
    changes: Sequence[CellChange],
) -> Cell:
    parts = [f"{_PREFIX.get(axis, '')}{level}" for axis, level in levels]
    name = "-".join(parts) or "base"
    own = [*common, f"name={json.dumps(name)}"]
    for axis, level in levels:
        own += _overrides(recipe, axis, level)
    for change in changes:
        own += [f"{place}={_yaml(value)}" for place, value in change.set.items()]
    try:
        settings = load_recipe(base, PipelineRecipe, folder="pipelines", overrides=own)
    except RecipeError as error:
        raise RecipeError(f"The cell {name} of the ablation {recipe.name}: {error}") from error
    _check_depth(recipe, name, levels, settings)
    return Cell(name, levels, tuple(own), settings)


def _overrides(recipe: AblationRecipe, axis: AxisName, level: str) -> Iterator[str]:
    match axis:
        case "retriever" if level == CLOSED_BOOK:
            yield from WITHOUT_PASSAGES
        case "retriever":
            yield f"retrieval={_yaml((recipe.retrievers or {})[level].model_dump(mode='json'))}"
        case "reranker":
            yield f"reranker={_yaml((recipe.rerankers or {})[level].model_dump(mode='json'))}"
        case "depth":
            yield f"reranker.depth={level}"
        case "packed":
            yield f"packing.max_passages={level}"
        case "reading":
            yield f"reading={_yaml((recipe.readings or {})[level].model_dump(mode='json'))}"
        case "prompt":
            path = (recipe.prompts or {})[level]
            plain = {"kind": "none"}
            chosen = plain if path is None else {"kind": "soft-prompt", "path": str(path)}
            yield f"prompt={_yaml(chosen)}"


def _yaml(value: Any) -> str:  # Any: JSON values
    """JSON in one line, which is YAML too."""
    return json.dumps(value, ensure_ascii=False)


def _check_depth(
    recipe: AblationRecipe, name: str, levels: Levels, settings: PipelineRecipe
) -> None:
    k = getattr(settings.retrieval, "k", None)
    depth = settings.reranker.depth
    if "depth" in dict(levels) and k is not None and depth is not None and depth > k:
        raise RecipeError(
            f"The cell {name} of the ablation {recipe.name} reranks {depth} hits, and {k} are "
            f"retrieved. Set depths of at most {k}, or a larger k of the retriever."
        )


def _refuse_closed_book(recipe: AblationRecipe, base: str, plain: PipelineRecipe) -> None:
    idle = recipe.axes.keys() - {"prompt"}
    if idle and isinstance(plain.retrieval, ClosedBook) and not recipe.retrievers:
        raise RecipeError(
            f"The pipeline {base} is closed book, so the axes {', '.join(sorted(idle))} of the "
            f"ablation {recipe.name} change nothing. Name retrievers, or another pipeline."
        )


def _check_changes(recipe: AblationRecipe, combined: Sequence[Levels]) -> None:
    for number, change in enumerate(recipe.cells):
        if change.skip:
            continue  # harmless, and left over where an axis was made shorter with --set
        if not any(_picked(change.where, levels) for levels in combined):
            raise RecipeError(
                f"cells.{number}.where of the ablation {recipe.name} picks no cell: "
                f"{dict(change.where)}. {_axes_told(recipe)}"
            )


def _refuse_equal(cells: Sequence[Cell]) -> None:
    seen: dict[str, str] = {}
    for cell in cells:
        settings = cell.settings.model_dump_json(exclude={"name"})
        if settings in seen:
            raise RecipeError(
                f"The cells {seen[settings]} and {cell.name} are the same pipeline. Leave one of "
                "the two levels out, or change what they are."
            )
        seen[settings] = cell.name


def _baseline(recipe: AblationRecipe, cells: Sequence[Cell]) -> Cell:
    if recipe.baseline == CLOSED_BOOK:
        wanted: Mapping[AxisName, str | int] = {"retriever": CLOSED_BOOK}
    elif isinstance(recipe.baseline, str):
        raise AssertionError(recipe.baseline)  # the recipe's model allows no other
    else:
        first = {axis: levels[0] for axis, levels in recipe.axes.items()}
        wanted = {**first, **recipe.baseline}
    found = [cell for cell in cells if _picked(wanted, cell.levels)]
    if not found:
        raise RecipeError(
            f"The baseline {dict(wanted)} is no cell of the ablation {recipe.name}. "
            f"{_axes_told(recipe)}"
        )
    return found[0]


def _axes_told(recipe: AblationRecipe) -> str:
    told = "; ".join(f"{axis}: {', '.join(levels)}" for axis, levels in recipe.axes.items())
    return f"Its axes are {told or 'none'}."
