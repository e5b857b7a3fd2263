"""The stages before the reader, for all cells at once: search, and score pairs.

    each retriever over all questions ─ each reranker over all pairs

One model is in memory at a time. What a stage gave is stored, and found again by the next process.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

from rag_frozen.absent_stages import KeepOrder, NoRetrieval
from rag_frozen.artifacts import atomic_write_text, file_sha256, fingerprint
from rag_frozen.artifacts.stream import RunStream, open_stream
from rag_frozen.build import fuse_by
from rag_frozen.evaluation.ablation.grid import PACKED, Cell
from rag_frozen.evaluation.ablation.passes import (
    RANKINGS,
    SCORES,
    PairScores,
    StoredReranker,
    retrieve_once,
)
from rag_frozen.evaluation.identity import code_version, questions_digest
from rag_frozen.pipeline import Pipeline
from rag_frozen.protocols import Reranker, Retriever
from rag_frozen.recipes.pipeline import Fusion, NoReranker, PipelineRecipe
from rag_frozen.retrieval.fusion import FusionRetriever
from rag_frozen.retrieval.replay import ReplayRetriever
from rag_frozen.types import Question, Ranking

__all__ = ["Costs", "LoadPipeline", "Report", "Stages", "depths_of"]


class Report(Protocol):
    """Is told (what, done, of how much)."""

    def __call__(self, what: str, done: int, total: int | None, /) -> None: ...


class LoadPipeline(Protocol):
    """Makes a pipeline of a recipe; see :func:`rag_frozen.build.load_pipeline`."""

    def __call__(
        self,
        recipe: str | Path,
        *,
        root: Path | None,
        overrides: Sequence[str],
        until: Literal["retrieve", "rerank", "read"],
        report: Report,
    ) -> Pipeline: ...


@dataclass(slots=True)
class Costs:
    """What one process spent: seconds by stage, and counts of what it did."""

    seconds: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Add the seconds of the block to a stage."""
        began = time.perf_counter()
        yield
        self.seconds[what] = self.seconds.get(what, 0.0) + time.perf_counter() - began

    def count(self, what: str, more: int) -> None:
        """Add to a count."""
        self.counts[what] = self.counts.get(what, 0) + more


class Stages:
    """What the cells share before the reader; :meth:`prepare` first, then ask for stages."""

    def __init__(
        self,
        folder: Path,
        questions: Sequence[Question],
        *,
        chunk_size: int,
        load: partial[Pipeline],
        report: Report,
        costs: Costs,
    ) -> None:
        """Set up.

        Args:
            folder: where the passes are stored.
            questions: all of them.
            chunk_size: questions a batch.
            load: makes a pipeline of ``overrides`` and ``until``; see :class:`LoadPipeline`.
            report: is told the progress.
            costs: what is spent is added there.
        """
        self.folder = folder
        self.questions = tuple(questions)
        self.chunk_size = chunk_size
        self.load = load
        self.report = report
        self.costs = costs
        self.version = code_version()
        self._corpora: dict[str, Pipeline] = {}
        self._rankings: dict[str, dict[str, Ranking]] = {}
        self._rerankers: dict[str, Reranker] = {}

    def prepare(self, cells: Sequence[Cell], held: ExitStack) -> None:
        """Retrieve and score for these cells; the stored scores stay open as long as ``held``."""
        with_passages = [cell for cell in cells if not cell.closed_book]
        for cell in with_passages:
            self._open_corpus(cell)
        self._retrieve(with_passages)
        self._rerank(with_passages, held)

    def corpus(self, cell: Cell) -> Pipeline | None:
        """A pipeline that holds the cell's texts and nothing else; None for closed book."""
        return None if cell.closed_book else self._corpora[str(cell.settings.index)]

    def retriever(self, cell: Cell) -> Retriever:
        """The cell's retriever over stored rankings."""
        settings = cell.settings
        if cell.closed_book:
            return NoRetrieval()
        parts = [
            (part.kind, self._replay(_source_key(settings, part)), part.k)
            for part in _sources(settings)
        ]
        if isinstance(settings.retrieval, Fusion):
            return FusionRetriever(parts, fuse_by(settings.retrieval.method))
        return parts[0][1]

    def reranker(self, cell: Cell) -> Reranker:
        """The cell's reranker over stored scores."""
        return self._rerankers.get(_reranker_key(cell.settings), KeepOrder())

    def _open_corpus(self, cell: Cell) -> None:
        index = str(cell.settings.index)
        if index not in self._corpora:
            changes = (self._nothing(), "reranker={kind: none}")
            self._corpora[index] = self._load(cell, changes, "retrieve")

    def _nothing(self) -> str:
        """Retrieval that needs no search engine and no encoder: a replay of nothing."""
        empty = self.folder / "shared" / "nothing.trec"
        atomic_write_text(empty, "")
        return f"retrieval={{kind: replay, run: {json.dumps(str(empty))}}}"

    def _load(
        self, cell: Cell, changes: Sequence[str], until: Literal["retrieve", "rerank"]
    ) -> Pipeline:
        return self.load(overrides=[*cell.overrides, *changes, PACKED], until=until)

    def _retrieve(self, cells: Sequence[Cell]) -> None:
        wanted: dict[str, tuple[Cell, Any, int]] = {}
        for cell in cells:
            for source in _sources(cell.settings):
                key = _source_key(cell.settings, source)
                _, _, depth = wanted.get(key, (cell, source, 0))
                wanted[key] = (cell, source, max(depth, source.k))
        for key, (cell, source, depth) in wanted.items():
            settings = {**source.model_dump(mode="json"), "k": depth}
            run = {"run": file_sha256(source.run)} if source.kind == "replay" else {}
            with (
                self.costs.timed(f"retrieve {source.kind}"),
                self._pass("retrieve", {"key": key, "k": depth, **run}, cell, RANKINGS) as stream,
            ):
                self._rankings[key] = retrieve_once(
                    stream,
                    self.questions,
                    partial(self._retriever_alone, cell, settings),
                    k=depth,
                    chunk_size=self.chunk_size,
                    told=partial(self._told, f"retrieving, {source.kind}"),
                )

    def _retriever_alone(self, cell: Cell, settings: dict[str, Any]) -> Retriever:
        changes = (f"retrieval={json.dumps(settings)}", "reranker={kind: none}")
        return self._load(cell, changes, "retrieve").retriever

    def _replay(self, key: str) -> ReplayRetriever:
        return ReplayRetriever(self._rankings[key], name="ablation")

    def _rerank(self, cells: Sequence[Cell], held: ExitStack) -> None:
        groups: dict[str, list[Cell]] = {}
        for cell in cells:
            if not isinstance(cell.settings.reranker, NoReranker):
                groups.setdefault(_reranker_key(cell.settings), []).append(cell)
        for key, group in groups.items():
            with self.costs.timed("rerank"):
                loaded = self._load(group[0], (self._nothing(),), "rerank").reranker
                digest = getattr(loaded, "digest", None)
                identity = {"key": key, "digest": digest}
                stream = held.enter_context(self._pass("rerank", identity, group[0], SCORES))
                scores = PairScores(stream)
                self._score(scores, loaded, group)
                self._rerankers[key] = StoredReranker(scores, digest=digest)

    def _score(self, scores: PairScores, reranker: Reranker, group: Sequence[Cell]) -> None:
        store = self._corpora[str(group[0].settings.index)].store
        self._told("reranking", 0)
        retrievers = [(self.retriever(cell), *depths_of(cell.settings)) for cell in group]
        for done, chunk in self._chunks():
            wanted: list[list[str]] = [[] for _ in chunk]
            for retriever, k, depth in retrievers:
                for ids, ranking in zip(wanted, retriever.retrieve(chunk, k=k), strict=True):
                    ids += [hit.passage_id for hit in ranking[:depth]]
            missing = scores.missing(chunk, wanted)
            if missing:
                pairs = [(question, store.get(ids)) for question, ids in missing]
                self.costs.count("pairs scored", scores.score(reranker, pairs))
            self._told("reranking", done)

    def _chunks(self) -> Iterator[tuple[int, Sequence[Question]]]:
        for start in range(0, len(self.questions), self.chunk_size):
            chunk = self.questions[start : start + self.chunk_size]
            yield start + len(chunk), chunk

    @contextmanager
    def _pass(
        self, what: str, identity: dict[str, Any], cell: Cell, name: str
    ) -> Iterator[RunStream]:
        """Open what a stage gave, for these questions over this corpus."""
        inputs = {
            "questions": questions_digest(self.questions),
            "chunk_size": str(self.chunk_size),
            **self._corpora[str(cell.settings.index)].artifacts,
            **self.version,
        }
        folder = self.folder / "shared" / f"{what}-{fingerprint(identity, inputs)}"
        with open_stream(folder, (name,)) as stream:
            yield stream

    def _told(self, what: str, done: int) -> None:
        self.report(what, done, len(self.questions))


def _sources(settings: PipelineRecipe) -> tuple[Any, ...]:  # Any: settings of search engines
    """The retrievers that search: the parts of a fusion, or the retriever itself."""
    retrieval = settings.retrieval
    return retrieval.parts if isinstance(retrieval, Fusion) else (retrieval,)


def _source_key(settings: PipelineRecipe, source: Any) -> str:
    values = source.model_dump(mode="json", exclude={"k"})
    return json.dumps([settings.index, settings.device, values], sort_keys=True)


def _reranker_key(settings: PipelineRecipe) -> str:
    joining = {"retrieval_weight", "retrieval_scores"}  # after the scores, which are the same
    values = settings.reranker.model_dump(mode="json", exclude={"depth", *joining})
    return json.dumps([settings.index, settings.device, settings.dtype, values], sort_keys=True)


def depths_of(settings: PipelineRecipe) -> tuple[int, int]:
    """Hits that are retrieved, and how many of them are reranked and offered to packing."""
    k = int(getattr(settings.retrieval, "k", 1))
    return k, min(settings.reranker.depth or k, k)
