"""Questions without annotators whose answer stands in another passage than they were made from.

A name, date or number is taken out of a sentence; what is left, as a few search words, is the
question. Retrieval looks for other passages that hold the answer and speak of the same: one of
these becomes the passage that answers, so that question and passage share few runs of words
(after Fabbri et al. 2020, *Template-Based Question Generation from Retrieved Sentences*,
arXiv 2004.11892). Passages found that do not hold the answer are its hard negatives. What is
written is what ``rag-frozen train`` reads.

Knows retrievers, stores and text; nothing of models or of training.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rag_frozen.artifacts import fingerprint
from rag_frozen.artifacts.stream import RunStream
from rag_frozen.errors import InputError
from rag_frozen.protocols import PassageStore, Retriever
from rag_frozen.training.cloze_rows import (
    AskedCloze,
    RetrievedClozeSettings,
    answered_row,
    ask_of,
    bare_title,
)
from rag_frozen.training.mining import ExclusionList, refuse_folder
from rag_frozen.training.unfinished_rows import finish_rows, unfinished_rows
from rag_frozen.types import Passage, Question, Ranking

__all__ = ["ClozeReport", "RetrievedClozeSettings", "RowStore", "write_retrieved_clozes"]

_CHUNK = 256
"""Questions that are retrieved together."""
_ROWS, _STATE = "rows.jsonl", "state.jsonl"
_DRAWS_FOR_A_ROW = 400
"""So many passages are drawn at most for each row that is wanted."""


class RowStore(PassageStore, Protocol):
    """A store whose passages can be drawn by their row."""

    @property
    def n_rows(self) -> int:
        """Rows, from 0."""
        ...

    @property
    def deleted_rows(self) -> npt.NDArray[np.int64]:
        """Rows whose passages were deleted."""
        ...

    def row(self, row: int) -> Passage:
        """The passage of a row, a deleted one too."""
        ...


@dataclass(frozen=True, slots=True)
class ClozeReport:
    """``drawn`` passages gave ``asked`` questions, of which ``rows`` were answered by another."""

    drawn: int
    asked: int
    rows: int


def write_retrieved_clozes(
    target: Path,
    retriever: Retriever,
    store: RowStore,
    *,
    settings: RetrievedClozeSettings,
    exclusions: Sequence[str] = (),
    retrieval: str | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> ClozeReport:
    """Write JSON lines with the fields of mined rows (``rag_frozen.training.mining``): ``id,
    question, answers, pid, title, text, rank, q_overlap, negatives, neg_pids``, and beside them
    ``asked_of``, the passage that the question was made from.

    The same corpus, index and settings give the same file.

    Args:
        target: the file to write, not compressed.
        retriever: finds passages; BM25 is enough.
        store: gives passages by row and by id.
        settings: how many and how near.
        exclusions: ids of passages that must never be trained on, or patterns (``nq_gold:*``).
        retrieval: names what retrieves and from what (the fingerprint of a pipeline). With it a
            writing that was stopped goes on after its last chunk of questions, from a folder beside
            the target, and ends in the same file.
        report: is told (rows written, of how many).

    Raises:
        InputError: when ``target`` is a folder, or no question finds an answer.
    """
    refuse_folder(target, such_as="cloze.jsonl")
    excluded = ExclusionList(exclusions)
    deleted = frozenset(store.deleted_rows.tolist())
    identity = None
    if retrieval is not None:
        recipe = {"settings": asdict(settings), "exclusions": sorted(set(exclusions))}
        identity = fingerprint({**recipe, "kind": "cloze"}, {"retrieval": retrieval})
    with unfinished_rows(target, identity, (_ROWS, _STATE)) as stream:
        rng, asked, rows = _where(stream, settings.seed)
        while rows < settings.rows and stream.done < _DRAWS_FOR_A_ROW * settings.rows:
            drawn, lines = 0, []
            batch: list[AskedCloze] = []
            for _ in range(_DRAWS_FOR_A_ROW * _CHUNK):
                if len(batch) == _CHUNK:
                    break
                drawn += 1
                place = rng.randrange(store.n_rows)
                if place in deleted:
                    continue
                passage = store.row(place)
                if _allowed(passage.id, settings, excluded):
                    one = ask_of(passage, rng)
                    batch += [] if one is None else [one]
            asked += len(batch)
            found = _find(batch, retriever, store, settings, excluded) if batch else []
            for one, hits in zip(batch, found, strict=True):
                row = answered_row(one, hits, settings, rng)
                if row is not None and rows < settings.rows:
                    named = {"id": f"cloze:{settings.seed}:{rows}", **row}
                    lines.append(json.dumps(named, ensure_ascii=False) + "\n")
                    rows += 1
            state = json.dumps([asked, rows, rng.getstate()]) + "\n"
            stream.append({_ROWS: "".join(lines), _STATE: state}, questions=drawn)
            report(rows, settings.rows)
        drawn = stream.done
        if rows:
            finish_rows(stream, _ROWS, target)
    if not rows:
        raise InputError(
            f"None of {asked:,} questions, made from {drawn:,} drawn passages, is answered by "
            "another passage: the corpus is too small for it, or --only and --exclude leave "
            "too little. Nothing was written."
        )
    return ClozeReport(drawn, asked, rows)


def _where(stream: RunStream, seed: int) -> tuple[random.Random, int, int]:
    """The generator as it stood after the last chunk, questions asked and rows written so far."""
    rng = random.Random(f"retrieved-cloze:{seed}")
    lines = stream.lines(_STATE)
    if not lines:
        return rng, 0, 0
    asked, rows, (version, numbers, gauss) = json.loads(lines[-1])
    rng.setstate((version, tuple(numbers), gauss))
    return rng, int(asked), int(rows)


def _allowed(passage_id: str, settings: RetrievedClozeSettings, excluded: ExclusionList) -> bool:
    if settings.only and not any(fnmatchcase(passage_id, p) for p in settings.only):
        return False
    return passage_id not in excluded


def _find(
    batch: Sequence[AskedCloze],
    retriever: Retriever,
    store: RowStore,
    settings: RetrievedClozeSettings,
    excluded: ExclusionList,
) -> list[list[tuple[int, Passage]]]:
    """Each question's hits with their ranks, without the passage that it was made from."""
    questions = [
        Question(
            str(n), f"{one.blank.before} {one.blank.after} {bare_title(one.passage.title)}"[:400]
        )
        for n, one in enumerate(batch)
    ]
    rankings: list[Ranking] = retriever.retrieve(questions, k=settings.k)
    kept = [
        [
            (rank, hit.passage_id)
            for rank, hit in enumerate(ranking)
            if hit.passage_id != one.passage.id and _allowed(hit.passage_id, settings, excluded)
        ]
        for one, ranking in zip(batch, rankings, strict=True)
    ]
    ids = list(dict.fromkeys(pid for hits in kept for _, pid in hits))
    texts = dict(zip(ids, store.get(ids), strict=True))
    return [[(rank, texts[pid]) for rank, pid in hits] for hits in kept]
