"""Mine training rows from an index: a passage that answers each question, and hard negatives.

Distant supervision as in DPR (Karpukhin et al. 2020, section 4.2): what a retriever finds and
what holds an answer is a positive, what it finds and what holds none is a hard negative. False
negatives are filtered by the same match. What is written is what ``rag-frozen train`` reads.

Knows retrievers, stores and answers; nothing of models or of training.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from rag_frozen.artifacts import file_sha256, fingerprint
from rag_frozen.errors import DataFormatError, InputError
from rag_frozen.protocols import PassageStore, Retriever
from rag_frozen.training.files import read_json_lines
from rag_frozen.training.mined_rows import (
    MiningSettings,
    mined_row,
    own_passage,
    row_of_own_passage,
)
from rag_frozen.training.unfinished_rows import HoldOut, finish_rows, unfinished_rows
from rag_frozen.types import Passage, Question, Ranking

__all__ = [
    "ExclusionList",
    "HoldOut",
    "MiningReport",
    "MiningSettings",
    "mine",
    "questions_to_mine",
    "refuse_folder",
]

_CHUNK = 256
"""Questions that are retrieved together."""
_ROWS, _COUNTS = "rows.jsonl", "excluded.txt"


class ExclusionList:
    """Ids of passages that must never be trained on, and patterns of ids.

    >>> left_out = ExclusionList(["simple:7", "nq_gold:*"])
    >>> "simple:7" in left_out, "nq_gold:3" in left_out, "simple:8" in left_out
    (True, True, False)
    """

    def __init__(self, names: Sequence[str]) -> None:
        """Take ids as they are and names with ``*`` as patterns."""
        self._exact = {name for name in names if "*" not in name}
        self._patterns = [name for name in names if "*" in name]

    def __contains__(self, passage_id: str) -> bool:
        return passage_id in self._exact or any(fnmatchcase(passage_id, p) for p in self._patterns)


@dataclass(frozen=True, slots=True)
class MiningReport:
    """What became of the questions: ``mined`` have a positive, ``held_out`` of them in a file of
    their own; ``excluded`` hits were left out."""

    questions: int
    mined: int
    excluded: int
    held_out: int
    ranks: Mapping[int, int]
    """How many questions have their positive at each rank, from 0."""


def mine(
    questions: Path,
    target: Path,
    retriever: Retriever,
    store: PassageStore,
    *,
    settings: MiningSettings | None = None,
    exclusions: Sequence[str] = (),
    retrieval: str | None = None,
    hold_out: HoldOut | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> MiningReport:
    """Write one JSON line for each question of which a passage was found that answers it.

    Fields: ``id, question, answers``; the best positive as ``pid, title, text, rank`` (from 0;
    after the last hit where a passage of the question's own was not found) and ``q_overlap``;
    ``positives`` and ``negatives``, lists of ``pid, title, text`` and the retriever's ``score``,
    best first; ``neg_pids``. Questions keep their order. A question none of whose hits answers is
    left out.

    Args:
        questions: JSON lines with ``question`` and ``answers``.
        target: the file to write, not compressed.
        retriever: finds candidates.
        store: gives their texts.
        settings: depths and filters.
        exclusions: ids of passages that must never be trained on, or patterns (``nq_gold:*``);
            hits of the same text are left out, too.
        retrieval: names what retrieves and from what (the fingerprint of a pipeline). With it a
            mining that was stopped goes on after its last 256 questions, from a folder beside the
            target, and ends in the same file.
        hold_out: rows that are kept apart, in a file of their own.
        report: is told (questions done, of how many).

    Raises:
        InputError, DataFormatError: when the questions cannot be read, none has an answer, or so
            few have that no row would be held out (what was mined is kept, where ``retrieval`` is
            named).
        ArtifactDamagedError: when what was mined before is damaged.
        StorageError: when it cannot be written.
    """
    chosen = settings or MiningSettings()
    rows = questions_to_mine(questions, target, hold_out)
    excluded_passages = ExclusionList(exclusions)
    identity = _identity(questions, chosen, exclusions, retrieval)
    with unfinished_rows(target, identity, (_ROWS, _COUNTS)) as stream:
        for start in range(stream.done, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            asked = [Question(str(n), str(row["question"])) for n, row in enumerate(chunk)]
            rankings = retriever.retrieve(asked, k=chosen.k)
            texts = _texts(rankings, store)
            excluded, lines = 0, []
            for row, ranking in zip(chunk, rankings, strict=True):
                found = [texts[hit.passage_id] for hit in ranking]
                scores = {hit.passage_id: hit.score for hit in ranking}
                left_out = [p for p in found if p.id in excluded_passages]
                copied = {p.text for p in left_out}  # the same text under another id
                kept = [p for p in found if p.text not in copied]
                excluded += len(found) - len(kept)
                own = own_passage(row) if chosen.own_passages else None
                if own is None:
                    made = mined_row(row, kept, scores, chosen)
                elif own.id in excluded_passages or own.text in copied:
                    made = None
                else:
                    made = row_of_own_passage(row, own, kept, scores, chosen)
                if made is not None:
                    lines.append(json.dumps(made, ensure_ascii=False) + "\n")
            stream.append({_ROWS: "".join(lines), _COUNTS: f"{excluded}\n"}, questions=len(chunk))
            report(stream.done, len(rows))
        ranks = Counter(json.loads(line)["rank"] for line in stream.lines(_ROWS))
        excluded = sum(int(line) for line in stream.lines(_COUNTS))
        if hold_out is not None and 0 < ranks.total() < hold_out.every:
            raise InputError(
                f"Of the {ranks.total()} rows mined every {hold_out.every}th was to be held out, "
                "and there are too few. Hold out more of them (--hold-out-every), or none."
            )
        if ranks:
            held_out = finish_rows(stream, _ROWS, target, hold_out)
    if not ranks:
        raise InputError(
            f"No passage answers any of the {len(rows):,} questions of {questions}: is this "
            "the corpus that they are about? Nothing was written."
        )
    return MiningReport(len(rows), ranks.total(), excluded, held_out, dict(sorted(ranks.items())))


def _identity(
    questions: Path, settings: MiningSettings, exclusions: Sequence[str], retrieval: str | None
) -> str | None:
    """Names what is mined; None where it is not known what retrieves."""
    if retrieval is None:
        return None
    recipe = {"settings": asdict(settings), "exclusions": sorted(set(exclusions))}
    return fingerprint(recipe, {"questions": file_sha256(questions), "retrieval": retrieval})


def questions_to_mine(
    questions: Path, target: Path, hold_out: HoldOut | None = None
) -> list[Mapping[str, Any]]:  # Any: JSON
    """Read the questions, and refuse a target that cannot be written.

    Raises:
        InputError, DataFormatError: when the questions cannot be read, a row has no answers, or
            a file to write is a folder, or both are one.
    """
    refuse_folder(target, such_as="mined.jsonl")
    if hold_out is not None:
        refuse_folder(hold_out.path, such_as="held-out.jsonl")
        if hold_out.path.resolve() == target.resolve():
            raise InputError(f"{target} is to hold the rows and those held out. Name two files.")
    rows = list(_questions(questions))
    if not rows:
        raise InputError(f"{questions} holds no question.")
    return rows


def refuse_folder(target: Path, *, such_as: str) -> None:
    """Raise ``InputError`` where a file is to be written and a folder is named."""
    if target.is_dir():
        raise InputError(
            f"{target} is a folder. Name the file to write, such as {target / such_as}"
        )


def _questions(path: Path) -> Iterable[Mapping[str, Any]]:
    for number, row in enumerate(read_json_lines(path), 1):
        answers = row.get("answers")
        if not isinstance(row.get("question"), str) or not isinstance(answers, list):
            raise DataFormatError(
                f"{path}, row {number}: mining needs the fields question (text) and answers "
                f"(a list); found {sorted(row)}."
            )
        yield row


def _texts(rankings: Sequence[Ranking], store: PassageStore) -> dict[str, Passage]:
    ids = list(dict.fromkeys(hit.passage_id for ranking in rankings for hit in ranking))
    return dict(zip(ids, store.get(ids), strict=True))
