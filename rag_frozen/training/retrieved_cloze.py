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
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rag_frozen.artifacts import fingerprint
from rag_frozen.errors import InputError
from rag_frozen.evaluation.stream import RunStream
from rag_frozen.normalization import normalize_answer
from rag_frozen.protocols import PassageStore, Retriever
from rag_frozen.training.cloze import Blank, blanks, is_stop_word, search_words
from rag_frozen.training.mining import ExclusionList, refuse_folder
from rag_frozen.training.unfinished_rows import finish_rows, unfinished_rows
from rag_frozen.types import Passage, Question, Ranking

__all__ = ["ClozeReport", "RetrievedClozeSettings", "RowStore", "write_retrieved_clozes"]

_CHUNK = 256
"""Questions that are retrieved together."""
_ROWS, _STATE = "rows.jsonl", "state.jsonl"
_DRAWS_FOR_A_ROW = 400
"""So many passages are drawn at most for each row that is wanted."""
_RUN = 6
"""Passages that share so many words in a row with the sentence tell it again."""
_NEAR = 200
"""Characters to both sides of the answer that have to speak of the same."""
_LONGEST_SENTENCE, _LONGEST_ANSWER, _QUESTION_WORDS = 40, 5, 9
_ASK = {
    "date": ("when", "when did", "when was", "what date"),
    "year": ("when", "what year", "in what year", "when did", "when was"),
    "number": ("how many", "how much", "what number of", "how"),
    "name": ("who", "who", "who is", "who was", "what", "which", "what is the name of"),
    "place": ("where", "where is", "where was", "where did", "in which", "what", "which"),
}
_CALENDAR_WORDS = """
january february march april may june july august september october november december
monday tuesday wednesday thursday friday saturday sunday
"""
_CALENDAR = frozenset(_CALENDAR_WORDS.split())
"""Capitalised, and no names."""
_COUNTS = ("number", "year")
"""Kinds whose answers stand in many passages by chance."""


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
class RetrievedClozeSettings:
    """How many rows, from which passages, and how near question and answering passage must be.

    ``only`` are patterns of ids (``simplewiki:*``): sentences and answering passages come from
    these alone. ``min_overlap`` is the share of the sentence's own words that the answering
    passage must hold (``min_overlap_of_counts`` where the answer is a number or a year), and
    ``min_near`` the share that must stand near the answer.
    """

    rows: int = 10_000
    seed: int = 0
    k: int = 25
    negatives: int = 6
    only: tuple[str, ...] = ()
    min_overlap: float = 0.45
    min_overlap_of_counts: float = 0.6
    min_near: float = 0.3

    def __post_init__(self) -> None:
        if self.rows < 1 or self.k < 1 or self.negatives < 0:
            raise InputError(
                f"Retrieved cloze questions need rows >= 1, k >= 1 and negatives >= 0, not "
                f"{self.rows}, {self.k} and {self.negatives}."
            )


@dataclass(frozen=True, slots=True)
class ClozeReport:
    """``drawn`` passages gave ``asked`` questions, of which ``rows`` were answered by another."""

    drawn: int
    asked: int
    rows: int


@dataclass(frozen=True, slots=True)
class _Asked:
    passage: Passage
    blank: Blank
    words: frozenset[str]
    """The sentence's own, its blank left out."""


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
            batch: list[_Asked] = []
            for _ in range(_DRAWS_FOR_A_ROW * _CHUNK):
                if len(batch) == _CHUNK:
                    break
                drawn += 1
                place = rng.randrange(store.n_rows)
                if place in deleted:
                    continue
                passage = store.row(place)
                if _allowed(passage.id, settings, excluded):
                    one = _ask(passage, rng)
                    batch += [] if one is None else [one]
            asked += len(batch)
            found = _find(batch, retriever, store, settings, excluded) if batch else []
            for one, hits in zip(batch, found, strict=True):
                row = _row(one, hits, settings, rng)
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


def _ask(passage: Passage, rng: random.Random) -> _Asked | None:
    """Take something out of a sentence of a passage, or None where nothing fits."""
    subject = normalize_answer(passage.title)
    for blank in blanks(passage.title, passage.text, rng, most=3):
        if blank.kind == "term" or len(blank.sentence.split()) > _LONGEST_SENTENCE:
            continue
        answer = normalize_answer(blank.answer)
        words = _own_words(f"{blank.before} {blank.after}")
        if len(blank.answer.split()) > _LONGEST_ANSWER or not answer or answer in subject:
            continue
        if answer in _CALENDAR:
            continue
        if len(words) >= 4:
            return _Asked(passage, blank, words)
    return None


def _find(
    batch: Sequence[_Asked],
    retriever: Retriever,
    store: RowStore,
    settings: RetrievedClozeSettings,
    excluded: ExclusionList,
) -> list[list[tuple[int, Passage]]]:
    """Each question's hits with their ranks, without the passage that it was made from."""
    questions = [
        Question(str(n), f"{one.blank.before} {one.blank.after} {_bare(one.passage.title)}"[:400])
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


def _row(
    one: _Asked,
    hits: Sequence[tuple[int, Passage]],
    settings: RetrievedClozeSettings,
    rng: random.Random,
) -> Mapping[str, Any] | None:  # Any: JSON values
    answer = one.blank.answer
    whole = re.compile(rf"(?<!\w){re.escape(answer)}(?!\w)")
    told = _runs(one.blank.sentence)
    least = settings.min_overlap_of_counts if one.blank.kind in _COUNTS else settings.min_overlap
    best: tuple[float, int, Passage, float] | None = None
    negatives: list[Passage] = []
    for rank, passage in hits:
        at = whole.search(passage.text)
        if at is None:
            if answer.lower() not in f"{passage.title} {passage.text}".lower():
                negatives.append(passage)
            continue
        near = passage.text[max(0, at.start() - _NEAR) : at.start() + _NEAR]
        overlap = _share(one.words, f"{passage.title} {passage.text}")
        overlap_near = _share(one.words, near)
        if overlap < least or overlap_near < settings.min_near:
            continue
        if _speaks_of(one.passage.title, passage) and not told & _runs(passage.text):
            score = overlap + overlap_near
            if best is None or score > best[0]:
                best = (score, rank, passage, overlap)
    if best is None:
        return None
    question = _question(one, rng)
    if answer.lower() in question.lower():
        return None
    _, rank, passage, overlap = best
    chosen = negatives[: settings.negatives]
    return {
        "question": question,
        "answers": [answer],
        **_written(passage),
        "rank": rank,
        "q_overlap": round(overlap, 3),
        "negatives": [_written(p) for p in chosen],
        "neg_pids": [p.id for p in chosen],
        "asked_of": one.passage.id,
    }


def _question(one: _Asked, rng: random.Random) -> str:
    """A question word and a window of the sentence's words, the subject among them."""
    kept = search_words(one.blank.before, one.blank.after, reach=10, rng=rng)
    if len(kept) > _QUESTION_WORDS:
        start = rng.randint(0, len(kept) - _QUESTION_WORDS)
        kept = kept[start : start + _QUESTION_WORDS]
    subject = _bare(one.passage.title)
    if not set(subject.lower().split()) <= set(" ".join(kept).lower().split()):
        kept = [subject, *kept] if rng.random() < 0.6 else [*kept, subject]
    question = " ".join([rng.choice(_ASK[one.blank.kind]), *kept])
    return question.lower() if rng.random() < 0.8 else question + "?"


def _bare(title: str) -> str:
    """A title without what tells it from others of its name.

    >>> _bare("Titanic (1997 film)")
    'Titanic'
    """
    return title.split(" (")[0]


def _own_words(text: str) -> frozenset[str]:
    return frozenset(w for w in normalize_answer(text).split() if not is_stop_word(w))


def _share(words: frozenset[str], text: str) -> float:
    return len(words & _own_words(text)) / len(words)


def _speaks_of(title: str, passage: Passage) -> bool:
    subject = _own_words(_bare(title))
    return bool(subject) and subject <= _own_words(f"{passage.title} {passage.text}")


def _runs(text: str) -> set[tuple[str, ...]]:
    words = normalize_answer(text).split()
    return {tuple(words[i : i + _RUN]) for i in range(len(words) - _RUN + 1)}


def _written(passage: Passage) -> dict[str, str]:
    return {"pid": passage.id, "title": passage.title, "text": passage.text}
