"""What reranker and retriever are trained and validated on: questions, positives, negatives.

Rows of ``rag-frozen mine`` bring all texts; for others the passages are read, negatives looked up
by id and searched by BM25. Knows nothing of models.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from rag_frozen.errors import InputError, RecipeError
from rag_frozen.evaluation.metrics import has_answer, normalize_answer
from rag_frozen.retrieval.bm25_tantivy import TantivyRetriever, build_tantivy
from rag_frozen.training.files import read_json_lines
from rag_frozen.training.ranking_settings import RankingData
from rag_frozen.training.settings import ReadingSource
from rag_frozen.training.sources import excluded_ids, hold_out, read_passage_source, read_rows
from rag_frozen.types import Passage, Question

__all__ = [
    "RankingRow",
    "RankingSource",
    "ValidationList",
    "draw_rows",
    "holds",
    "load_ranking_data",
    "ranking_marks",
    "read_sources",
    "row_answers",
    "row_passages",
    "written",
]

Row = Mapping[str, Any]  # Any: JSON values
Drawn = TypeVar("Drawn")
Drawn_co = TypeVar("Drawn_co", covariant=True)


@dataclass(frozen=True, slots=True)
class RankingRow:
    """A question, its answers, passages that hold one, and passages near it that hold none.

    ``log_likelihoods`` are the frozen reader's of the answer given each of the first
    ``candidates``, where it was asked. ``scores`` are the retriever's of the candidates by their
    texts, as far as the row's file has them.
    """

    question: str
    answers: tuple[str, ...]
    positives: tuple[Passage, ...]
    negatives: tuple[Passage, ...]
    log_likelihoods: tuple[float, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict, hash=False)

    @property
    def candidates(self) -> tuple[Passage, ...]:
        """Positives, then negatives."""
        return (*self.positives, *self.negatives)


@dataclass(frozen=True, slots=True)
class RankingSource:
    """Rows that are drawn with a weight."""

    weight: float
    rows: tuple[RankingRow, ...]


class Weighted(Protocol[Drawn_co]):
    """Rows that are drawn with a weight."""

    @property
    def weight(self) -> float: ...
    @property
    def rows(self) -> Sequence[Drawn_co]: ...


@dataclass(frozen=True, slots=True)
class ValidationList:
    """A held-out question with its candidates as the first stage ranked them, and which of them
    hold an answer."""

    question: str
    answers: tuple[str, ...]
    passages: tuple[Passage, ...]
    answering: tuple[bool, ...]
    scores: Mapping[str, float] = field(default_factory=dict, hash=False)
    """The retriever's, by the candidates' texts, as far as they are known."""


def written(passage: Passage) -> str:
    """A passage as encoder and cross-encoder read it, in training and afterwards.

    >>> written(Passage("1", "Hamlet", "A play."))
    'Hamlet. A play.'
    """
    return f"{passage.title}. {passage.text}" if passage.title else passage.text


def load_ranking_data(
    data: RankingData, *, examples: int, seed: int
) -> tuple[list[RankingSource], list[ValidationList]]:
    """Load the sources and the validation lists; no held-out question is in a source.

    Args:
        data: the recipe's.
        examples: how many rows will be drawn; where negatives have to be searched, about so many
            rows are kept.
        seed: which ones.

    Raises:
        InputError, DataFormatError: when a file is missing or malformed, or nothing is left.
        RecipeError: when a source and a file of the split share a name.
    """
    excluded = excluded_ids(data.passages, data.path)
    rows_of = read_sources(data)
    held = hold_out(
        rows_of,
        titles_of=data.held_out.titles.name,
        n_titles=data.held_out.n_titles,
        rows_from=data.held_out.rows.name,
        n_rows=data.held_out.n_rows,
        seed=data.held_out.seed,
    )[data.held_out.rows.name][: data.held_out.limit]
    search = any(not _is_mined(row) for s in data.questions for row in rows_of[s.name])
    passages: dict[str, Passage] = {}
    if search or data.held_out.candidates is None:
        read = read_passage_source(data.passages, data.path)
        passages = {p.id: p for p in read if p.id not in excluded}
    if search:
        _keep_needed(rows_of, data.questions, examples=examples, seed=seed)
    harder = _harder(data)
    with tempfile.TemporaryDirectory(prefix="rag-frozen-bm25-") as folder:
        index = None
        if passages:
            build_tantivy(Path(folder) / "index", passages.values())
            index = TantivyRetriever(Path(folder) / "index")
        maker = _RowMaker(passages, index, excluded, harder, data)
        sources = [
            RankingSource(one.weight, tuple(maker.rows(rows_of[one.name])))
            for one in data.questions
        ]
        if data.held_out.candidates is None:
            lists = maker.searched_lists(held)
        else:
            lists = maker.stored_lists(held, _file(data, data.held_out.candidates))
    if not any(source.rows for source in sources):
        raise InputError(
            "No question of the recipe has a passage that holds an answer. Name the data with "
            "--set data.path=FOLDER, and see max_rank and min_overlap of its sources."
        )
    return [source for source in sources if source.rows], lists


def draw_rows(
    sources: Sequence[Weighted[Drawn]],
    n: int,
    *,
    rng: random.Random,
    marks: Callable[[Drawn], Iterable[object]] | None = None,
) -> list[Drawn]:
    """Draw ``n`` rows by the sources' weights.

    Args:
        sources: with at least one row each.
        n: how many.
        rng: a seeded generator.
        marks: no two rows share a mark, such as question and passages, so that the passages of
            one are negatives of the others; fewer come back where there are not so many.
    """
    weights = [source.weight for source in sources]
    drawn: list[Drawn] = []
    seen: set[object] = set()
    for _ in range(n if marks is None else 20 * n):
        row = rng.choice(rng.choices(sources, weights)[0].rows)
        if marks is not None:
            own = set(marks(row))
            if own & seen:
                continue
            seen |= own
        drawn.append(row)
        if len(drawn) == n:
            break
    return drawn


def ranking_marks(row: RankingRow) -> list[str]:
    """The question and its positives' texts, by which rows of a batch are kept apart."""
    return [row.question, *(p.text for p in row.positives)]


def read_sources(data: RankingData) -> dict[str, list[Row]]:
    """All rows by source: those to train on, and those that the split is taken from."""
    named: dict[str, ReadingSource] = {}
    for source in (data.held_out.titles, data.held_out.rows, *data.questions):
        known = named.setdefault(source.name, source)
        if known.model_dump(exclude={"weight"}) != source.model_dump(exclude={"weight"}):
            raise RecipeError(
                f"Two sources are named {source.name} and are not the same: {known} and {source}. "
                "The validation split is taken from the first; give the other another name."
            )
    return {name: list(read_rows(source, data.path)) for name, source in named.items()}


def _is_mined(row: Row) -> bool:
    return "negatives" in row


def _file(data: RankingData, name: str) -> Path:
    if data.path is None:
        raise RecipeError(f"{name} is a file of yours: say where with --set data.path=FOLDER")
    return data.path / name


def _harder(data: RankingData) -> dict[str, Sequence[Any]]:
    """Negatives by question that an earlier round's model found."""
    if data.harder is None:
        return {}
    rows = read_json_lines(_file(data, data.harder))
    return {str(row["question"]): row.get("negatives", ()) for row in rows}


def _keep_needed(
    rows_of: dict[str, list[Row]], sources: Sequence[ReadingSource], *, examples: int, seed: int
) -> None:
    """Keep about as many rows of each source as will be drawn: searching for all would take longer
    than training on few."""
    total = sum(source.weight for source in sources)
    for source in sources:
        n = 1 + int(1.2 * examples * source.weight / total)
        rows = rows_of[source.name]
        if all(_is_mined(row) for row in rows):
            continue
        rows_of[source.name] = random.Random(f"{seed}:{source.name}").sample(
            rows, min(n, len(rows))
        )


@dataclass(frozen=True, slots=True)
class _RowMaker:
    """Makes rows and lists; ``passages`` and ``index`` are there where something is searched."""

    passages: Mapping[str, Passage]
    index: TantivyRetriever | None
    excluded: set[str]
    harder: Mapping[str, Sequence[Any]]
    data: RankingData

    def rows(self, rows: Sequence[Row]) -> Iterable[RankingRow]:
        """Those of the rows that have a positive and a negative."""
        searched = [row for row in rows if not _is_mined(row)]
        found = iter(self._found([str(row["question"]) for row in searched], self.data.mined))
        for row in rows:
            near = [] if _is_mined(row) else next(found)
            if row.get("near_nq_eval_passage"):
                continue
            answers = row_answers(row)
            question = str(row["question"])
            positives = tuple(
                p for p in self._texts(row.get("positives", (row,))) if holds(p.text, answers)
            )
            negatives = self._negatives(row, near, answers, positives)
            if positives and negatives:
                yield RankingRow(
                    question, answers, positives, negatives, scores=_stored_scores(row)
                )

    def _negatives(
        self,
        row: Row,
        near: Sequence[Passage],
        answers: tuple[str, ...],
        positives: Sequence[Passage],
    ) -> tuple[Passage, ...]:
        by_id = (self.passages.get(pid) for pid in row.get("neg_pids", ()))
        candidates = [
            *self._texts(self.harder.get(str(row["question"]), ())),
            *self._texts(row.get("negatives", ())),
            *(p for p in by_id if p is not None and not _is_mined(row)),
            *near,
        ]
        golds = {p.text for p in positives}
        kept: dict[str, Passage] = {}
        for passage in candidates:
            if len(kept) == self.data.most_negatives:
                break
            if passage.text not in golds and not holds(passage.text, answers):
                kept.setdefault(passage.text, passage)
        return tuple(kept.values())

    def searched_lists(self, rows: Sequence[Row]) -> list[ValidationList]:
        """BM25's first hits for each held-out row."""
        found = self._found([str(row["question"]) for row in rows], self.data.held_out.depth)
        return [_validation_list(row, near) for row, near in zip(rows, found, strict=True)]

    def stored_lists(self, held: Sequence[Row], file: Path) -> list[ValidationList]:
        """The candidates of a mined file for the held-out questions that it holds.

        It says at which rank the first positive stood, so that the lists begin as the retriever
        ranked them: what comes after the first positive has no part in recall or MRR.
        """
        asked = {str(row["question"]) for row in held}
        lists = []
        for row in read_json_lines(file):
            if str(row["question"]) not in asked:
                continue
            good = list(self._texts(row.get("positives", (row,))))
            bad = list(self._texts(row.get("negatives", ())))
            rank = min(int(row.get("rank", 0)), len(bad))
            order = [*bad[:rank], *good, *bad[rank:]]
            made = _validation_list(row, order[: self.data.held_out.depth])
            lists.append(replace(made, scores=_stored_scores(row)))
        if not lists:
            raise InputError(
                f"{file} holds none of the {len(asked)} held-out questions. Mine it from the file "
                f"{self.data.held_out.rows.file} with: rag-frozen mine"
            )
        return lists

    def _found(self, questions: Sequence[str], k: int) -> list[list[Passage]]:
        if self.index is None or not questions:
            return [[] for _ in questions]
        asked = [Question(str(number), text) for number, text in enumerate(questions)]
        rankings = self.index.retrieve(asked, k=k)
        return [[self.passages[hit.passage_id] for hit in ranking] for ranking in rankings]

    def _texts(self, ones: Iterable[Row]) -> Iterable[Passage]:
        return (p for p in row_passages(ones) if p.id not in self.excluded)


def _validation_list(row: Row, passages: Sequence[Passage]) -> ValidationList:
    answers = row_answers(row)
    answering = tuple(has_answer(p.text, answers) for p in passages)
    return ValidationList(str(row["question"]), answers, tuple(passages), answering)


def _stored_scores(row: Row) -> dict[str, float]:
    """The retriever's scores of a mined row's passages, by their texts."""
    ones = [*row.get("positives", ()), *row.get("negatives", ())]
    return {str(one["text"]): float(one["score"]) for one in ones if "score" in one}


def row_passages(ones: Iterable[Row]) -> Iterable[Passage]:
    """Passages as rows hold them; one without ``pid`` has an empty id."""
    for one in ones:
        yield Passage(str(one.get("pid", "")), str(one.get("title", "")), str(one["text"]))


def row_answers(row: Row) -> tuple[str, ...]:
    """The answers of a row."""
    return tuple(str(answer) for answer in row["answers"])


def holds(text: str, answers: Sequence[str]) -> bool:
    """An answer stands in the text, both normalised: a wider match than the evaluation's, since
    a negative that answers after all does more harm than one negative less."""
    normalized = f" {normalize_answer(text)} "
    return any(f" {normalize_answer(answer)} " in normalized for answer in answers)
