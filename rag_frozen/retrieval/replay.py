"""Stored runs in TREC's form: written, read, and replayed as a retriever.

A line is ``question-id Q0 passage-id rank score tag``, separated by white space.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rag_frozen.artifacts import atomic_write_text
from rag_frozen.errors import DataFormatError, InputError, UnknownPassageError
from rag_frozen.protocols import PassageStore
from rag_frozen.retrieval.passage_ids import check_k
from rag_frozen.types import Hit, Question, Ranking, sort_hits

__all__ = ["ReplayRetriever", "read_trec_run", "trec_lines", "write_trec_run"]


def write_trec_run(path: Path, rankings: Iterable[tuple[str, Ranking]], *, tag: str) -> None:
    """Write rankings by question id; scores with all their digits, so that reading gives them back.

    Raises:
        InputError: for an id or tag with white space, which the form cannot hold.
    """
    atomic_write_text(path, "".join(trec_lines(rankings, tag=tag)))


def trec_lines(rankings: Iterable[tuple[str, Ranking]], *, tag: str) -> Iterator[str]:
    """Yield the lines of :func:`write_trec_run`, line ends included.

    Raises:
        InputError: as there.

    >>> list(trec_lines([("q1", (Hit("p7", 0.5),))], tag="bm25"))
    ['q1 Q0 p7 1 0.5 bm25\\n']
    """
    for question_id, ranking in rankings:
        for rank, hit in enumerate(ranking, 1):
            parts = (question_id, "Q0", hit.passage_id, str(rank), repr(float(hit.score)), tag)
            if any(not part or part.split() != [part] for part in parts):
                raise InputError(
                    f"A TREC run cannot hold {parts}: ids and the tag must not be empty or hold "
                    "white space."
                )
            yield " ".join(parts) + "\n"


def read_trec_run(path: Path) -> dict[str, Ranking]:
    """Read rankings by question id; hits are ordered by score, then id, whatever their rank says.

    Raises:
        InputError: when the file cannot be read.
        DataFormatError: for a malformed line, a score that is no number, or a passage that stands
            twice under a question; the message names file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"The run {path} cannot be read: {error}. Name a file in TREC's form, such as run.trec "
            "of a run's folder."
        ) from error
    hits: dict[str, dict[str, float]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        parts = line.split()
        where = f"{path}, line {number}"
        if len(parts) != 6:
            raise DataFormatError(
                f"{where}: {len(parts)} fields, 6 are expected: "
                "question-id Q0 passage-id rank score tag"
            )
        try:
            score = float(parts[4])
        except ValueError as error:
            raise DataFormatError(f"{where}: the score {parts[4]!r} is no number") from error
        if not math.isfinite(score):
            raise DataFormatError(f"{where}: the score {parts[4]!r} is not finite")
        of_one = hits.setdefault(parts[0], {})
        if parts[2] in of_one:
            raise DataFormatError(f"{where}: passage {parts[2]} stands twice under {parts[0]}")
        of_one[parts[2]] = score
    return {
        question_id: sort_hits(Hit(passage_id, score) for passage_id, score in of_one.items())
        for question_id, of_one in hits.items()
    }


class ReplayRetriever:
    """Gives the rankings of a stored run, by question id."""

    def __init__(
        self,
        rankings: Mapping[str, Ranking],
        *,
        name: str,
        store: PassageStore | None = None,
        scores: Mapping[str, Mapping[str, Ranking]] | None = None,
    ) -> None:
        """Take a run, and check its ids against the corpus when one is given.

        Args:
            rankings: by question id.
            name: of the run, for messages.
            store: of the corpus.
            scores: by stage and question id, what the run was made from.

        Raises:
            UnknownPassageError: when the run names passages that the corpus does not hold.
        """
        self._rankings = dict(rankings)
        self._name = name
        self.scores = dict(scores or {})
        if store is not None:
            ids = sorted({hit.passage_id for r in self._rankings.values() for hit in r})
            try:
                store.get(ids)
            except UnknownPassageError as error:
                raise UnknownPassageError(
                    f"The run {name} is not over this corpus: {error}"
                ) from error

    def retrieve(self, questions: Sequence[Question], *, k: int) -> list[Ranking]:
        """Return the stored rankings, cut to ``k``.

        Raises:
            InputError: for a question that the run does not hold.
        """
        check_k(k)
        missing = [question.id for question in questions if question.id not in self._rankings]
        if missing:
            raise InputError(
                f"The run {self._name} holds no ranking for {len(missing)} of {len(questions)} "
                f"questions, such as {missing[0]!r}. Questions are found by id: use the run of "
                "the same data set, or retrieve anew."
            )
        return [self._rankings[question.id][:k] for question in questions]

    def retrieve_parts(
        self, questions: Sequence[Question]
    ) -> list[tuple[Ranking, dict[str, Ranking]]]:
        """Return for each question its whole ranking, and those of the stages before.

        Raises:
            InputError: for a question that the run does not hold.
        """
        longest = max((len(ranking) for ranking in self._rankings.values()), default=0)
        return [
            (ranking, {stage: runs.get(question.id, ()) for stage, runs in self.scores.items()})
            for question, ranking in zip(
                questions, self.retrieve(questions, k=max(1, longest)), strict=True
            )
        ]
