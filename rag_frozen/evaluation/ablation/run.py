"""Make every cell of a grid: each becomes a stored run, and a table compares them.

Retrieval, reranking and reading run one after the other, one model in memory at a time:

    each retriever over all questions ─ each reranker over all pairs ─ each reader over all prompts

What these give is stored under ``<root>/ablations/<name>-<data>/``; a process that is killed is
continued by the next one, batch by batch, and the table is that of an undisturbed one.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import yaml

from rag_frozen.absent_stages import NoPassages
from rag_frozen.artifacts import (
    atomic_write_text,
    fingerprint,
    held_folder,
    load_manifest,
    name_folder,
    storage_errors,
    write_artifact,
)
from rag_frozen.artifacts.stream import open_stream
from rag_frozen.build import as_read, joined_scores, load_pipeline
from rag_frozen.errors import ArtifactError, InputError
from rag_frozen.evaluation.ablation.grid import PACKED, WITHOUT_PASSAGES, Cell, Grid, make_grid
from rag_frozen.evaluation.ablation.passes import ANSWERS, SharedReader
from rag_frozen.evaluation.ablation.stages import Costs, LoadPipeline, Report, Stages, depths_of
from rag_frozen.evaluation.ablation.table import AblationTable, make_table, markdown_table
from rag_frozen.evaluation.costs import describe_machine, peak_memory
from rag_frozen.evaluation.examples import ExampleSet
from rag_frozen.evaluation.identity import (
    pipeline_inputs,
    prompt_digests,
    questions_digest,
)
from rag_frozen.evaluation.runs import RunOptions, read_run, run_folder, store_run
from rag_frozen.evaluation.scoring import KnownAnswers
from rag_frozen.packing.packer import GreedyPacker
from rag_frozen.pipeline import Pipeline
from rag_frozen.questions import as_questions
from rag_frozen.reader.confidence import calibrated
from rag_frozen.recipes.ablation import AblationRecipe
from rag_frozen.recipes.pipeline import PipelineRecipe

__all__ = ["StoredAblation", "run_ablation"]


@dataclass(frozen=True, slots=True)
class StoredAblation:
    """A finished ablation: its folder, its table, and how many cells an earlier process did."""

    folder: Path
    table: AblationTable
    resumed: int


def run_ablation(
    recipe: AblationRecipe,
    data: ExampleSet,
    *,
    root: Path | None = None,
    pipeline: str | None = None,
    overrides: Sequence[str] = (),
    load: LoadPipeline = load_pipeline,
    report: Report = lambda what, done, total: None,
) -> StoredAblation:
    """Run every cell of a grid, sharing what is equal, and store the table.

    A retriever is asked once, at the largest depth that any cell or fusion needs: its ranking cut
    to k is taken as its ranking of k. A pair of question and passage is scored once a reranker, a
    prompt read once a reader and soft prompt. Each cell is a run of its own, as
    ``rag-frozen eval`` stores it, whose times hold only what was not shared.

    Args:
        recipe: of the ablation.
        data: the questions, as the recipe names them.
        root: of the artifacts.
        pipeline: another base than the recipe's.
        overrides: ``a.b=c``, changes of the base in every cell.
        load: makes pipelines of recipes.
        report: is told the progress.

    Raises:
        RecipeError: when a cell is wrong; before anything is loaded.
        InputError: when a question cannot be asked, none has an answer, or another process runs
            the same.
        ArtifactError, ModelError, StorageError: when something cannot be used or written.
    """
    if not any(example.answers for example in data.examples):
        raise InputError(
            f"No question of {data.name} has an answer, so no cell of {recipe.name} would have a "
            "score. Name other data with: --set data.path=FILE"
        )
    grid = make_grid(recipe, pipeline=pipeline, overrides=overrides)
    questions = as_questions([example.question for example in data.examples])
    for cell in grid.cells:
        run_folder(root, pipeline=cell.settings.name, data=data.name)
        prompt_digests(cell.settings.prompt.model_dump(mode="json"))
    folder = name_folder(root, "ablation", name=data.name)
    with storage_errors(folder), held_folder(folder) as ours, ExitStack() as held:
        if not ours:
            raise InputError(
                f"Another process is running this very ablation ({folder}). Wait for it, or stop "
                "it; what it finished is kept."
            )
        stages = Stages(
            folder,
            questions,
            chunk_size=recipe.chunk_size,
            load=partial(load, grid.pipeline, root=root, report=report),
            report=report,
            costs=Costs(),
        )
        stages.prepare(grid.cells, held)
        cells = _Cells(recipe, grid, data, root, stages)
        runs = cells.run()
        return _store(cells, runs)


class _Cells:
    """Runs the cells over what the stages before the reader gave."""

    def __init__(
        self,
        recipe: AblationRecipe,
        grid: Grid,
        data: ExampleSet,
        root: Path | None,
        stages: Stages,
    ) -> None:
        self.recipe = recipe
        self.grid = grid
        self.data = data
        self.root = root
        self.stages = stages
        self.resumed = 0
        self._known: KnownAnswers = {}

    def run(self) -> dict[str, Path]:
        """Run all cells, those of one reader after each other; return each one's run by name."""
        groups: dict[str, list[Cell]] = {}
        for cell in self.grid.cells:
            groups.setdefault(_reading_key(cell.settings), []).append(cell)
        runs: dict[str, Path] = {}
        for group in groups.values():
            with self.stages.costs.timed("read"):
                self._read(group, runs)
        return runs

    def _read(self, group: Sequence[Cell], runs: dict[str, Path]) -> None:
        overrides = [*group[0].overrides, *WITHOUT_PASSAGES, PACKED]
        loaded = self.stages.load(overrides=overrides, until="read")
        settings = group[0].settings.model_dump(mode="json")
        used = {name: settings[name] for name in ("reader", "prompt", "device", "dtype")}
        inputs = {**pipeline_inputs(loaded), **self.stages.version}
        folder = self.stages.folder / "shared" / f"read-{fingerprint(used, inputs)}"
        with open_stream(folder, (ANSWERS,)) as stream:
            reader = SharedReader(loaded.reader, stream)
            for cell in group:
                runs[cell.name] = self._run(cell, loaded, reader, done=len(runs))
            self.stages.costs.count("prompts", reader.asked)
            self.stages.costs.count("prompts read", reader.read)

    def _run(self, cell: Cell, loaded: Pipeline, reader: SharedReader, *, done: int) -> Path:
        """Make the cell's run, or find it."""
        pipeline = self._pipeline(cell, loaded, reader)
        n = len(self.data.examples)
        record = self.stages.folder / "cells" / f"{self._identity(pipeline)}.json"
        found = _finished(record, run_folder(self.root, pipeline=cell.name, data=self.data.name))
        if found is not None:
            self.resumed += 1
            self.stages.report("reading", (done + 1) * n, len(self.grid.cells) * n)
            return found
        run = store_run(
            pipeline,
            self.data,
            self.root,
            options=RunOptions(chunk_size=self.recipe.chunk_size),
            evaluation={"ablation": self.recipe.name, "cell": dict(cell.levels)},
            progress=lambda progress: self.stages.report(
                "reading", done * n + progress.done, len(self.grid.cells) * n
            ),
            known=self._known,
        )
        atomic_write_text(record, json.dumps({"run": run.folder.name}) + "\n")
        return run.folder

    def _identity(self, pipeline: Pipeline) -> str:
        """What a finished cell must share with this one to be it."""
        inputs = {
            "questions": questions_digest(self.stages.questions),
            "data": self.data.sha256,
            "chunk_size": str(self.recipe.chunk_size),
            **pipeline_inputs(pipeline),
            **self.stages.version,
        }
        return fingerprint({"ablation": self.recipe.name, "pipeline": pipeline.recipe}, inputs)

    def _pipeline(self, cell: Cell, loaded: Pipeline, reader: SharedReader) -> Pipeline:
        """The cell's pipeline, made of what is stored and of the reader in memory."""
        settings = cell.settings
        packer = loaded.packer
        if isinstance(packer, GreedyPacker):
            packer = copy.copy(packer)
            packer.max_passages = settings.packing.max_passages
        packer, read, weigh = as_read(settings, packer, reader)
        corpus = self.stages.corpus(cell)
        k, depth = depths_of(settings)
        return Pipeline(
            name=settings.name,
            store=NoPassages() if corpus is None else corpus.store,
            retriever=self.stages.retriever(cell),
            reranker=self.stages.reranker(cell),
            packer=packer,
            reader=read,
            k=k,
            rerank_depth=depth,
            join=joined_scores(settings),
            recipe=settings.model_dump(mode="json"),
            artifacts={} if corpus is None else corpus.artifacts,
            confidence=partial(calibrated, **settings.confidence.model_dump()),
            weigh=weigh,
        )


def _store(cells: _Cells, runs: dict[str, Path]) -> StoredAblation:
    from rag_frozen.evaluation.report.ablation_page import render_ablation

    recipe, grid, stages = cells.recipe, cells.grid, cells.stages
    table = make_table(
        recipe,
        grid,
        [(cell, runs[cell.name].name, read_run(runs[cell.name])) for cell in grid.cells],
    )
    resolved = recipe.model_dump(mode="json")
    costs = {
        "seconds": {what: round(spent, 3) for what, spent in stages.costs.seconds.items()},
        "counts": stages.costs.counts,
        "cells found": cells.resumed,
        "peak_memory_mib": round(peak_memory() / 2**20, 1),
        "machine": describe_machine(),
    }
    with write_artifact(
        stages.folder,
        kind="ablation",
        name=stages.folder.name,
        recipe={"ablation": resolved, "cells": {c.name: [*c.overrides] for c in grid.cells}},
        inputs={"data": cells.data.sha256, **{name: run.name for name, run in runs.items()}},
        by_fingerprint=True,
    ) as draft:
        files = {
            "recipe.yaml": yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True),
            "ablation.json": json.dumps(table.to_json(), indent=2) + "\n",
            "ablation.md": markdown_table(table),
            "ablation.html": render_ablation(table),
            "costs.json": json.dumps(costs, indent=2) + "\n",
        }
        for name, text in files.items():
            (draft / name).write_text(text, encoding="utf-8", newline="\n")
        draft.counts["cells"] = len(runs)
        draft.counts["questions"] = table.questions
    return StoredAblation(draft.target, table, cells.resumed)


def _reading_key(settings: PipelineRecipe) -> str:
    """What cells must share to use one reader in memory."""
    values = settings.model_dump(
        mode="json", exclude={"name", "index", "retrieval", "reranker", "reading", "confidence"}
    )
    values["packing"].pop("max_passages")
    return json.dumps(values, sort_keys=True)


def _finished(record: Path, parent: Path) -> Path | None:
    """The run that a record names, if it is still there and whole."""
    try:
        folder = parent / str(json.loads(record.read_text(encoding="utf-8"))["run"])
        load_manifest(folder, kind="run")
    except (OSError, ValueError, KeyError, TypeError, ArtifactError):
        return None
    return folder
