"""The cells of a grid, and what is told of a wrong recipe."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from rag_frozen.errors import RecipeError
from rag_frozen.evaluation.ablation.grid import make_grid
from rag_frozen.recipes.ablation import AblationRecipe
from rag_frozen.recipes.loading import load_recipe
from rag_frozen.recipes.pipeline import ClosedBook
from tests.evaluation.ablation import GRID, grid


def test_the_cells_are_all_levels_with_all_and_a_closed_book_row(tmp_path: Path):
    cells = make_grid(grid(tmp_path)).cells
    assert len(cells) == 3 * 2 * 2 * 2 + 1
    assert len({cell.name for cell in cells}) == len(cells)
    fused = next(cell for cell in cells if cell.name == "fused-cross-d4-p2")
    settings = fused.settings
    assert (settings.retrieval.kind, settings.reranker.depth) == ("fused", 4)
    assert settings.packing.max_passages == 2
    assert settings.name == fused.name
    assert isinstance(cells[-1].settings.retrieval, ClosedBook)


def test_axes_that_are_left_out_keep_what_the_pipeline_has(tmp_path: Path):
    none = dict.fromkeys(("retrievers", "rerankers", "depths", "packed"))
    cells = make_grid(grid(tmp_path, **{**none, "packed": [3, 4]}, closed_book=False, baseline={}))
    assert [cell.name for cell in cells.cells] == ["p3", "p4"]
    assert {cell.settings.retrieval.kind for cell in cells.cells} == {"bm25"}
    assert cells.baseline.name == "p3"
    alone = make_grid(grid(tmp_path, **none, baseline={}))
    assert [cell.name for cell in alone.cells] == ["base", "closed-book"]


def test_the_baseline_takes_the_first_level_of_what_it_does_not_name(tmp_path: Path):
    assert make_grid(grid(tmp_path)).baseline.name == "bm25-none-d2-p1"
    changed = grid(tmp_path, baseline={"retriever": "dense", "packed": 2})
    assert make_grid(changed).baseline.name == "dense-none-d2-p2"
    assert make_grid(grid(tmp_path, baseline="closed-book")).baseline.name == "closed-book"


def test_cells_are_changed_and_left_out(tmp_path: Path):
    changes = [
        {"where": {"reranker": "cross", "depth": 4}, "set": {"packing.order": "best_last"}},
        {"where": {"reranker": "none", "depth": 4}, "skip": True},
    ]
    cells = make_grid(grid(tmp_path, cells=changes)).cells
    assert not any(cell.name.endswith("none-d4-p1") for cell in cells)
    ordered = {cell.name: cell.settings.packing.order for cell in cells}
    assert ordered["bm25-cross-d4-p1"] == "best_last"
    assert ordered["bm25-cross-d2-p1"] == "best_first"


def test_a_shorter_axis_may_leave_nothing_to_leave_out(tmp_path: Path):
    changes = [{"where": {"reranker": "none", "depth": 4}, "skip": True}]
    made = make_grid(grid(tmp_path, depths=[2], cells=changes))
    assert len(made.cells) == 3 * 2 * 1 * 2 + 1


def test_overrides_hold_in_every_cell_and_another_base_can_be_named(tmp_path: Path):
    recipe = grid(tmp_path)
    other = tmp_path / "other.yaml"
    other.write_text(Path(recipe.pipeline).read_text().replace("tiny/reader", "tiny/other"))
    cells = make_grid(recipe, pipeline=str(other), overrides=["packing.window=64"]).cells
    assert {cell.settings.reader.model for cell in cells} == {"tiny/other"}
    assert {cell.settings.packing.window for cell in cells} == {64}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"baseline": {"retriever": "splade"}}, r"baseline .*splade.* is no cell .*bm25, dense"),
        (
            {"cells": [{"where": {"depth": 7}, "set": {"packing.order": "best_last"}}]},
            r"cells.0.where .* picks no cell",
        ),
        ({"depths": [9]}, "reranks 9 hits, and 6 are retrieved"),
        (
            {"cells": [{"where": {"packed": 1}, "set": {"packing.ordr": "best_last"}}]},
            r"cell bm25-none-d2-p1 .*did you mean order",
        ),
        (
            {"prompts": {"a": None, "b": None}},
            "bm25-none-d2-p1-a and bm25-none-d2-p1-b are the same",
        ),
        ({"cells": [{"where": {"reranker": "none", "depth": 2}, "skip": True}]}, "is no cell"),
        ({"pipeline": "no-such"}, "There is no recipe no-such"),
    ],
)
def test_a_wrong_recipe_says_what_is_wrong(tmp_path: Path, changes: dict[str, object], said: str):
    recipe = grid(tmp_path)
    changed = AblationRecipe.model_validate({**recipe.model_dump(), **changes})
    with pytest.raises(RecipeError, match=f"(?s){said}"):
        make_grid(changed)


def test_a_grid_of_one_cell_or_none_compares_nothing(tmp_path: Path):
    none = dict.fromkeys(("retrievers", "rerankers", "depths", "packed"))
    for packed in ([2], None):
        recipe = grid(tmp_path, **{**none, "packed": packed}, closed_book=False, baseline={})
        with pytest.raises(RecipeError, match="two or more"):
            make_grid(recipe)


def test_a_closed_book_base_needs_retrievers(tmp_path: Path):
    recipe = grid(tmp_path, retrievers=None, baseline={})
    base = Path(recipe.pipeline)
    base.write_text(base.read_text().replace("{kind: bm25, k: 6}", "{kind: closed-book}"))
    with pytest.raises(RecipeError, match="is closed book"):
        make_grid(recipe)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"depths": [5, 5]}, "names a level twice"),
        ({"depths": [0]}, "greater than or equal to 1"),
        ({"rerankers": {"A b": {"kind": "none"}}}, "match pattern"),
        ({"retrievers": {"closed-book": {"kind": "bm25"}}}, "set closed_book: true"),
        ({"retrievers": {"x": {"kind": "splade"}}}, "splade"),
        ({"cells": [{"where": {"depth": 2}}]}, "either set or skip"),
        ({"cells": [{"where": {"dept": 2}, "skip": True}]}, "dept"),
        ({"baselin": {}}, "baselin"),
    ],
)
def test_a_recipe_that_cannot_be_meant_is_refused(changes: dict[str, object], said: str):
    with pytest.raises(ValidationError, match=said):
        AblationRecipe.model_validate({**GRID, "pipeline": "pocket", **changes})


@pytest.mark.parametrize(
    ("name", "baseline"),
    [("ablation-pocket", "bm25-none-d5-p2"), ("ablation-nq", "bm25-none-d5-p2-packed")],
)
def test_the_shipped_grids_resolve(name: str, baseline: str):
    recipe = load_recipe(name, AblationRecipe, folder="eval")
    made = make_grid(recipe)
    assert {"bm25", "dense", "fused", "closed-book"} == {
        dict(cell.levels)["retriever"] for cell in made.cells
    }
    assert made.baseline.name == baseline
