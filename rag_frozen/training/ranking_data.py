"""What reranker and retriever are trained and validated on: questions, positives, negatives.

Rows of ``rag-frozen mine`` bring all texts; for others the passages are read, negatives looked up
by id and searched by BM25. Knows nothing of models.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rag_frozen.errors import InputError, RecipeError
from rag_frozen.evaluation.metrics import has_answer, normalize_answer
from rag_frozen.retrieval.bm25_tantivy import TantivyRetriever, build_tantivy
from rag_frozen.training.files import read_json_lines
from rag_frozen.training.mined_rows import asks_yes_or_no
from rag_frozen.training.ranking_rows import RankingRow, RankingSource, ValidationList
from rag_frozen.training.ranking_settings import HeldOut, RankingData
from rag_frozen.training.settings import ReadingSource
from rag_frozen.training.sources import excluded_ids, hold_out, read_passage_source, read_rows
from rag_frozen.types import Passage, Question

__all__ = [
    "holds",
    "load_ranking_data",
    "read_sources",
    "row_answers",
    "row_passages",
    "split_off",
]

Row = Mapping[str, Any]  # Any: JSON values


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
    held = split_off(rows_of, data.held_out)[data.held_out.rows.name][: data.held_out.limit]
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


def split_off(rows_of: dict[str, list[Row]], held_out: HeldOut) -> dict[str, list[Row]]:
    """Take the recipe's validation parts out of ``rows_of``, and return them by source."""
    return hold_out(
        rows_of,
        titles_of=held_out.titles.name,
        n_titles=held_out.n_titles,
        rows_from=held_out.rows.name,
        n_rows=held_out.n_rows,
        seed=held_out.seed,
    )


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
            given = self._texts(row.get("positives", (row,)))
            by_match = not (_is_mined(row) and asks_yes_or_no(answers))
            positives = tuple(p for p in given if not by_match or holds(p.text, answers))
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
            answering = not asks_yes_or_no(answers) and holds(passage.text, answers)
            if passage.text not in golds and not answering:
                kept.setdefault(passage.text, passage)
        return tuple(kept.values())

    def searched_lists(self, rows: Sequence[Row]) -> list[ValidationList]:
        """BM25's first hits for each held-out row."""
        found = self._found([str(row["question"]) for row in rows], self.data.held_out.depth)
        return [_validation_list(row, near) for row, near in zip(rows, found, strict=True)]

    def stored_lists(self, held: Sequence[Row], file: Path) -> list[ValidationList]:
        """The candidates of a mined file for the held-out questions that it holds.

        The retriever's scores order them; without these it is known at which rank the first
        positive stood, so that the lists begin as the retriever ranked them: what comes after the
        first positive has no part in recall or MRR.
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
            scores = _stored_scores(row)
            if all(p.text in scores for p in order):
                order.sort(key=lambda p: -scores[p.text])
            made = _validation_list(row, order[: self.data.held_out.depth])
            lists.append(replace(made, scores=scores))
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
