"""Read what reader and reranker are trained on, and hold the validation parts out.

From files below one folder, or from hub data sets by their public names.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag_frozen.errors import InputError, ModelMissingError
from rag_frozen.training.files import read_ids, read_json_lines
from rag_frozen.training.reading_data import Mixture, ReadingData, ReadingRow
from rag_frozen.training.settings import HubData, PassageSource, ReaderTraining, ReadingSource
from rag_frozen.types import Passage, Question

__all__ = [
    "ValidationRow",
    "excluded_ids",
    "hold_out",
    "hub_rows",
    "load_reading_data",
    "map_rows",
    "read_passage_source",
    "read_rows",
]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ValidationRow:
    """A prompt with one gold passage, and the answers that count."""

    source: str
    answers: tuple[str, ...]


def load_reading_data(
    settings: ReaderTraining,
) -> tuple[ReadingData, dict[str, list[ValidationRow]]]:
    """Load what the recipe names; hold out the validation parts.

    Raises:
        InputError, DataFormatError: when a file is missing or malformed.
    """
    data = settings.data
    excluded = excluded_ids(data.passages, data.path)
    passages = [p for p in read_passage_source(data.passages, data.path) if p.id not in excluded]
    wanted: set[str] = set()
    rows_of = {source.name: list(read_rows(source, data.path)) for source in data.reading}
    for rows in rows_of.values():
        wanted.update(pid for row in rows for pid in row.get("neg_pids", ())[:8])
    by_id = {p.id: p for p in passages if p.id in wanted}
    held_out = hold_out(
        rows_of,
        titles_of=data.reading[0].name,
        n_titles=data.validation_titles,
        rows_from=data.validation_source,
        n_rows=data.validation_rows,
        seed=settings.seed if data.split_seed is None else data.split_seed,
    )
    reading = [
        (source.weight, map_rows(rows_of[source.name], by_id, excluded)) for source in data.reading
    ]
    validation = {
        name: [
            ValidationRow(
                settings.template.write(
                    Question("", row["question"]), [Passage("", row["title"], row["text"])]
                ),
                tuple(row["answers"]),
            )
            for row in rows
        ]
        for name, rows in held_out.items()
    }
    yes_no = data.yes_no
    closed_book = data.closed_book
    held_questions = {row["question"] for rows in held_out.values() for row in rows}
    return (
        ReadingData(
            passages=passages,
            reading=reading,
            yes_no=[] if yes_no is None else map_rows(read_rows(yes_no, data.path), {}, excluded),
            closed_book=[]
            if closed_book is None
            else [
                (row["question"], row["answers"][0])
                for row in read_rows(closed_book, data.path)
                if row["question"] not in held_questions
            ],
            template=settings.template,
            mixture=Mixture(**settings.mixture.model_dump()),
            seed=settings.seed,
        ),
        validation,
    )


def map_rows(
    rows: Iterable[Mapping[str, Any]], by_id: Mapping[str, Passage], excluded: set[str]
) -> list[ReadingRow]:
    """Turn raw rows into reading rows: the first answer that stands in the text is the target.

    A mined row (``rag-frozen mine``) holds the texts of its ``negatives`` and ``positives``; each
    positive becomes a reading row.
    """
    made = []
    for row in rows:
        if row.get("pid") in excluded or row.get("near_nq_eval_passage"):
            continue
        golds = [answer.lower() for answer in row["answers"]]
        near = [
            *(_mined_passage(one) for one in row.get("negatives", ())),
            *(by_id[pid] for pid in row.get("neg_pids", ()) if pid in by_id),
        ]
        negatives = tuple(
            {p.id: p for p in near if not any(gold in p.text.lower() for gold in golds)}.values()
        )
        for passage in row.get("positives", (row,)):
            if passage.get("pid") in excluded:
                continue
            text = str(passage["text"])
            found = _answer_in(text, row["answers"])
            if found is not None and len(found.split()) <= 12:
                gold = Passage("", str(passage["title"]), text)
                made.append(ReadingRow(row["question"], found, gold, negatives))
    return made


def _mined_passage(one: Mapping[str, Any]) -> Passage:
    return Passage(str(one["pid"]), str(one["title"]), str(one["text"]))


def _answer_in(text: str, answers: Sequence[str]) -> str | None:
    """The first answer that stands in the text, as it is written there; yes and no as they are."""
    for answer in answers:
        if answer and answer in text:
            return answer
    lowered = text.lower()
    if len(lowered) == len(text):
        for answer in answers:
            if answer and (at := lowered.find(answer.lower())) >= 0:
                return text[at : at + len(answer)]
    return answers[0] if answers[0] in ("yes", "no") else None


def hold_out(
    rows_of: dict[str, list[Mapping[str, Any]]],
    *,
    titles_of: str,
    n_titles: int,
    rows_from: str,
    n_rows: int,
    seed: int,
) -> dict[str, list[Mapping[str, Any]]]:
    """Take the validation parts out of ``rows_of``, and return them by source.

    They are all rows of ``n_titles`` titles of one source, and ``n_rows`` rows of another; the
    questions of both leave every source. Equal data and seed give equal parts, whatever is trained.

    Raises:
        InputError: when there is no such source.
    """
    for name in (titles_of, rows_from):
        if name not in rows_of:
            raise InputError(
                f"Validation rows are to come from {name!r}, but the recipe names only "
                f"{sorted(rows_of)}."
            )
    rng = random.Random(f"{seed}:validation")
    titles = sorted({str(row["title"]) for row in rows_of[titles_of]})
    chosen = set(rng.sample(titles, min(n_titles, len(titles) - 1)))
    by_title = [row for row in rows_of[titles_of] if row["title"] in chosen]
    rows_of[titles_of] = [row for row in rows_of[titles_of] if row["title"] not in chosen]
    rows = list(rows_of[rows_from])
    held = rng.sample(rows, min(n_rows, len(rows) // 2))
    questions = {row["question"] for row in (*held, *by_title)}
    for name in rows_of:
        rows_of[name] = [row for row in rows_of[name] if row["question"] not in questions]
    rng.shuffle(by_title)
    return {titles_of: by_title, rows_from: held}


def excluded_ids(source: PassageSource, path: Path | None) -> set[str]:
    """Ids of passages that are never trained on."""
    if path is None or source.exclude is None:
        return set()
    return set(read_ids(path / source.exclude))


def read_passage_source(source: PassageSource, path: Path | None) -> Iterable[Passage]:
    """Read passages from the source's files below ``path``, or from its hub data set."""
    if path is None:
        for number, row in enumerate(hub_rows(source.hub)):
            words = str(row["text"]).split()
            for start in range(0, max(len(words) - 40, 0), 100):
                text = " ".join(words[start : start + 100])
                yield Passage(f"{number}:{start // 100}", str(row["title"]), text)
        return
    files = sorted(file for pattern in source.files for file in path.glob(pattern))
    if not files:
        raise InputError(
            f"No file below {path} is named as in {list(source.files)}. Name the folder that holds "
            "the data with: --set data.path=DIR"
        )
    for file in files:
        for row in read_json_lines(file, fields=("id", "title", "text")):
            yield Passage(str(row["id"]), str(row["title"]), str(row["text"]))


def read_rows(source: ReadingSource, path: Path | None) -> Iterable[Mapping[str, Any]]:
    """Read a source's rows: question, answers, title, text, and what else its file holds."""
    rows = (
        (_from_squad(row) for row in hub_rows(source.hub))
        if path is None
        else read_json_lines(path / source.file, fields=("question", "answers"))
    )
    for row in rows:
        if source.max_rank is not None and row.get("rank", 0) >= source.max_rank:
            continue
        if source.min_overlap is not None and row.get("q_overlap", 1.0) < source.min_overlap:
            continue
        yield row


def _from_squad(row: Mapping[str, Any]) -> dict[str, Any]:
    """Rows of SQuAD, BoolQ and NQ-open on the hub in the shape of our files."""
    answers = row.get("answers", row.get("answer"))
    if isinstance(answers, Mapping):
        answers = answers["text"]
    if isinstance(answers, bool):
        answers = ["yes" if answers else "no"]
    return {
        "question": row["question"],
        "answers": [answers] if isinstance(answers, str) else list(answers),
        "title": row.get("title", ""),
        "text": row.get("context", row.get("passage", "")),
    }


def hub_rows(hub: HubData | None) -> Iterable[Mapping[str, Any]]:
    """Read a hub data set's rows as they are; none, with a warning, where a source has no hub."""
    if hub is None:
        _LOG.warning("A source of the recipe has no public data set and is left out: no data.path")
        return ()
    import datasets

    try:
        return datasets.load_dataset(  # type: ignore[no-any-return]
            hub.name, hub.config, split=hub.split, revision=hub.revision
        )
    except (OSError, ValueError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelMissingError(
            f"The data set {hub.name} of the hub (split {hub.split}) cannot be loaded: {said}. "
            "Allow the network, or name a folder with the files that the recipe lists: "
            "--set data.path=DIR"
        ) from error
