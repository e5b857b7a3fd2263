"""An ablation does no work twice, ends the same after any crash, and says what each cell gave."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rag_frozen.artifacts import load_manifest, verify
from rag_frozen.errors import ArtifactMissingError, InputError, RecipeError
from rag_frozen.evaluation.ablation.grid import Cell, make_grid
from rag_frozen.evaluation.ablation.run import StoredAblation, run_ablation
from rag_frozen.evaluation.runner import evaluate
from rag_frozen.evaluation.runs import read_run, run_folder
from rag_frozen.pipeline import Pipeline
from rag_frozen.recipes.ablation import AblationRecipe
from rag_frozen.types import Question
from tests.evaluation.ablation import (
    GRID,
    Died,
    World,
    cells_of,
    examples,
    grid,
    prompt,
    result_files,
)


def alone(folder: Path, cell: Cell, world: World) -> Pipeline:
    """The cell's pipeline as ``rag-frozen eval`` would make it."""
    base = make_grid(grid(folder)).pipeline
    return world(base, root=None, overrides=cell.overrides, until="read", report=None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, World, StoredAblation]:
    """The whole grid, run once, by stages whose scores do not lean on their batches."""
    folder = tmp_path_factory.mktemp("whole")
    world = World(leaning=0.0)
    return folder, world, run_ablation(grid(folder), examples(), root=folder, load=world)


@pytest.fixture(scope="module")
def apart(whole: tuple[Path, World, StoredAblation]) -> World:
    """What the cells ask for when each is run alone."""
    world = World(leaning=0.0)
    for cell in make_grid(grid(whole[0])).cells:
        alone(whole[0], cell, world).answer([one.question for one in examples().examples])
    return world


def test_every_pair_that_a_cell_needs_is_scored_exactly_once(whole, apart: World):
    _, world, _ = whole
    assert set(world.pairs.values()) == {1}
    assert set(world.pairs) == set(apart.pairs)
    assert sum(apart.pairs.values()) > 3 * len(apart.pairs)


def test_a_prompt_that_several_cells_pack_is_read_once(whole, apart: World):
    _, world, _ = whole
    assert set(world.prompts.values()) == {1}
    assert set(world.prompts) == set(apart.prompts)


def test_every_retriever_is_asked_once_at_the_largest_depth(whole):
    _, world, _ = whole
    assert world.retrieved == {
        (kind, f"q{n}", k): 1 for kind, k in (("bm25", 6), ("dense", 5)) for n in range(5)
    }


def test_a_cell_gives_the_scores_of_its_pipeline_run_alone(whole):
    root, _, done = whole
    stored = cells_of(done.folder)
    for cell in make_grid(grid(root)).cells:
        single = evaluate(alone(root, cell, World(leaning=0.0)), examples())
        folder = run_folder(root, pipeline=cell.name, data="cities") / stored[cell.name]["run"]
        assert read_run(folder).scored == single.scored
        assert stored[cell.name]["exact_match"] == pytest.approx(single.exact_match)
        assert stored[cell.name]["recall"] == {
            str(k): pytest.approx(value) for k, value in single.recall.get("final", {}).items()
        }


def test_cells_that_read_passages_one_by_one_share_what_is_read(tmp_path: Path):
    each = "{kind: each, scores: retrieve, weight: 0.3}"
    recipe = grid(tmp_path, reading=each)
    world = World(leaning=0.0)
    done = run_ablation(recipe, examples(), root=tmp_path, load=world)
    assert max(world.prompts.values()) == 1
    stored = cells_of(done.folder)
    own = 0
    for cell in make_grid(recipe).cells:
        fresh = World(leaning=0.0)
        base = make_grid(recipe).pipeline
        one = fresh(base, root=None, overrides=cell.overrides, until="read", report=None)
        single = evaluate(one, examples())
        folder = run_folder(tmp_path, pipeline=cell.name, data="cities") / stored[cell.name]["run"]
        assert read_run(folder).scored == single.scored
        own += sum(passage.own is not None for row in single.scored for passage in row.evidence)
    assert own > 50


def test_a_reranker_joined_with_its_retrieval_is_joined_in_its_cells_too(tmp_path: Path):
    cross = {"kind": "cross-encoder", "model": "tiny/ce"}
    joined = {**cross, "retrieval_weight": 1e3}
    recipe = grid(tmp_path, rerankers={"alone": cross, "joined": joined}, closed_book=False,
                  baseline={"retriever": "bm25", "reranker": "alone"})  # fmt: skip
    world = World(leaning=0.0)
    done = run_ablation(recipe, examples(), root=tmp_path, load=world)
    assert max(world.pairs.values()) == 1  # the sum needs no score twice
    stored = cells_of(done.folder)
    scored = {}
    for cell in make_grid(recipe).cells:
        single = evaluate(alone(tmp_path, cell, World(leaning=0.0)), examples())
        folder = run_folder(tmp_path, pipeline=cell.name, data="cities") / stored[cell.name]["run"]
        assert read_run(folder).scored == single.scored
        scored[cell.name] = [(row.prediction, row.evidence) for row in single.scored]
    pairs = [(scored[name], scored[name.replace("alone", "joined")]) for name in scored]
    assert any(one != other for one, other in pairs)


def test_ways_of_reading_are_an_axis(tmp_path: Path):
    readings = {"packed": {"kind": "packed"}, "each": {"kind": "each", "weight": 0.3}}
    recipe = grid(
        tmp_path, readings=readings, retrievers=None, rerankers=None, depths=None, packed=[2],
        baseline={"reading": "packed"},
    )  # fmt: skip
    done = run_ablation(recipe, examples(), root=tmp_path, load=World(leaning=0.0))
    assert [cell.name for cell in done.table.cells] == ["p2-packed", "p2-each", "closed-book"]
    assert [cell.levels.get("reading") for cell in done.table.cells] == ["packed", "each", None]
    assert (done.folder / "ablation.md").read_text().count("| each |") == 1
    base = make_grid(recipe).pipeline
    for cell in make_grid(recipe).cells:
        fresh = World(leaning=0.0)
        one = fresh(base, root=None, overrides=cell.overrides, until="read", report=None)
        folder = run_folder(tmp_path, pipeline=cell.name, data="cities")
        stored = folder / cells_of(done.folder)[cell.name]["run"]
        assert read_run(stored).scored == evaluate(one, examples()).scored


def test_scores_that_a_cell_lacks_are_told_before_anything_is_loaded(tmp_path: Path):
    recipe = grid(tmp_path, reading="{kind: each, scores: dense}")
    world = World()
    with pytest.raises(RecipeError, match=r"reading\.scores is dense.*are: retrieve, bm25\."):
        run_ablation(recipe, examples(), root=tmp_path, load=world)
    assert world.loaded == []


def test_one_model_is_loaded_at_a_time(tmp_path: Path):
    world = World()
    run_ablation(few(tmp_path), examples(), root=tmp_path, load=world)
    assert world.loaded == [
        "retrieve replay none",
        "retrieve bm25 none",
        "retrieve dense none",
        "rerank replay cross-encoder",
        "read closed-book none",
    ]


def few(folder: Path) -> AblationRecipe:
    """Five cells: quick to run again and again."""
    kept = {name: GRID["retrievers"][name] for name in ("bm25", "fused")}
    return grid(folder, retrievers=kept, depths=[4], packed=[1])


def test_an_ablation_that_dies_in_any_stage_goes_on_and_ends_as_an_undisturbed_one(tmp_path: Path):
    world = World()
    whole = run_ablation(few(tmp_path), examples(), root=tmp_path / "whole", load=world)
    searches, scorings = sum(world.retrieved.values()) // 5 * 3, 3
    for dies_at in (1, searches + 1, searches + scorings, world.calls - 1):
        root = tmp_path / f"died{dies_at}"
        first, second = World(dies_at=dies_at), World()
        with pytest.raises(Died):
            run_ablation(few(tmp_path), examples(), root=root, load=first)
        done = run_ablation(few(tmp_path), examples(), root=root, load=second)
        assert result_files(done.folder) == result_files(whole.folder)
        assert done.folder.name == whole.folder.name
        assert first.calls + second.calls == world.calls
        assert set((first.pairs + second.pairs).values()) == {1}


def test_an_ablation_may_die_again_and_again(tmp_path: Path):
    whole = run_ablation(few(tmp_path), examples(), root=tmp_path / "whole", load=World())
    deaths = 0
    while True:
        try:
            done = run_ablation(few(tmp_path), examples(), root=tmp_path, load=World(dies_at=4))
            break
        except Died:
            deaths += 1
    assert deaths > 3
    assert result_files(done.folder) == result_files(whole.folder)


def test_a_finished_ablation_is_found_again_and_asks_no_stage(tmp_path: Path):
    first = run_ablation(few(tmp_path), examples(), root=tmp_path, load=World())
    world = World()
    again = run_ablation(few(tmp_path), examples(), root=tmp_path, load=world)
    assert (again.folder, world.calls) == (first.folder, 0)
    assert again.resumed == len(again.table.cells)
    manifest = verify(again.folder, kind="ablation")
    assert manifest.counts == {"cells": len(again.table.cells), "questions": 4}


def test_a_larger_grid_takes_what_a_smaller_one_made(tmp_path: Path):
    run_ablation(few(tmp_path), examples(), root=tmp_path, load=World())
    larger = few(tmp_path).model_copy(update={"depths": (2, 4, 5), "name": "larger"})
    world, fresh = World(), World()
    run_ablation(larger, examples(), root=tmp_path, load=world)
    run_ablation(larger, examples(), root=tmp_path / "b", load=fresh)
    assert world.retrieved == {}
    assert len(fresh.retrieved) > 0
    assert len(world.pairs) < len(fresh.pairs)


def test_other_questions_of_the_same_name_share_nothing(tmp_path: Path):
    run_ablation(few(tmp_path), examples(), root=tmp_path, load=World())
    other = examples()
    asked = [replace(e, question=Question(e.question.id, "now?")) for e in other.examples]
    world, fresh = World(), World()
    changed = replace(other, examples=tuple(asked))
    run_ablation(few(tmp_path), changed, root=tmp_path, load=world)
    run_ablation(few(tmp_path), changed, root=tmp_path / "b", load=fresh)
    assert world.calls == fresh.calls


def test_prompts_are_an_axis_and_one_trained_anew_is_another(tmp_path: Path):
    folder = prompt(tmp_path / "static")
    recipe = grid(
        tmp_path,
        prompts={"plain": None, "static": str(folder)},
        packed=[2],
        depths=[2],
        rerankers=None,
        baseline={},
    )
    done = run_ablation(recipe, examples(), root=tmp_path, load=World())
    stored = cells_of(done.folder)
    assert {"closed-book-plain", "closed-book-static", "bm25-d2-p2-static"} <= set(stored)
    plain, static = stored["dense-d2-p2-plain"], stored["dense-d2-p2-static"]
    assert plain["exact_match"] != static["exact_match"]
    (folder / "manifest.json").unlink()
    (folder / "head.bin").unlink()
    folder.rmdir()
    prompt(folder, "trained anew")
    world = World()
    again = run_ablation(recipe, examples(), root=tmp_path, load=world)
    assert {name for _, name in world.prompts} == {str(folder)}
    assert again.resumed == sum(not name.endswith("static") for name in stored)


def test_a_prompt_that_is_not_there_is_told_before_anything_is_loaded(tmp_path: Path):
    world = World()
    recipe = grid(tmp_path, prompts={"plain": None, "static": str(tmp_path / "nowhere")})
    with pytest.raises(ArtifactMissingError, match=r"no trained prompt in .*nowhere"):
        run_ablation(recipe, examples(), root=tmp_path, load=world)
    assert world.loaded == []


def test_two_processes_do_not_run_the_same_ablation_at_once(tmp_path: Path):
    class Nested(World):
        def called(self) -> None:
            with pytest.raises(InputError, match="Another process"):
                run_ablation(few(tmp_path), examples(), root=tmp_path, load=World())
            super().called()

    world = Nested()
    run_ablation(few(tmp_path), examples(), root=tmp_path, load=world)
    assert world.calls > 5


def test_questions_without_any_answer_give_nothing_to_compare(tmp_path: Path):
    world = World()
    with pytest.raises(InputError, match="No question of cities has an answer"):
        run_ablation(grid(tmp_path), examples(1), root=tmp_path, load=world)
    assert world.loaded == []


def test_what_is_stored_tells_what_was_shared(whole):
    _, world, done = whole
    assert load_manifest(done.folder).kind == "ablation"
    counts = json.loads((done.folder / "costs.json").read_text())["counts"]
    assert counts["pairs scored"] == sum(world.pairs.values())
    assert counts["prompts read"] == sum(world.prompts.values()) < counts["prompts"]


def test_a_wrong_recipe_is_told_before_anything_is_loaded(tmp_path: Path):
    world = World()
    with pytest.raises(RecipeError, match="reranks 9 hits, and 6 are retrieved"):
        run_ablation(grid(tmp_path, depths=[2, 9]), examples(), root=tmp_path, load=world)
    assert world.loaded == []
