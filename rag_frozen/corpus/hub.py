"""Passages from data sets of the hub, streamed by ``datasets``: nothing is downloaded whole.

A folder of Parquet, JSON or CSV files in the place of a data set's name is read the same way.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rag_frozen.corpus.readers import PassageReader
from rag_frozen.corpus.rows import Row, RowFault, record_passage
from rag_frozen.corpus.unfinished import file_marks
from rag_frozen.errors import InputError
from rag_frozen.types import Passage

__all__ = ["HubDataset", "count_rows", "read_dataset", "resolve_revision"]

_log = logging.getLogger(__name__)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_VECTORS = (
    "embeddings",
    "emb",
)  # columns of wiki_dpr and its like: 3 KB a row that nobody asks for


@dataclass(frozen=True, slots=True)
class HubDataset:
    """A data set's name and part, and the names of its fields where they are not the usual ones.

    ``revision`` is a commit, a tag or a branch.
    """

    name: str
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    id_field: str | None = None
    title_field: str | None = None
    text_field: str | None = None


def read_dataset(dataset: HubDataset, *, strict: bool = False) -> PassageReader:
    """Return an iterator over the rows of a data set as passages.

    Raises:
        InputError: while iterating, when the data set, its part or its revision cannot be reached.
        DataFormatError: while iterating, with ``strict``, for the first row that is no passage.
    """
    name = "/".join(filter(None, (dataset.name, dataset.config, dataset.split)))
    return PassageReader(
        [(name, partial(_rows, dataset))],
        strict=strict,
        unit="rows",
        place="row",
        identity=partial(_identity, dataset),
    )


def resolve_revision(dataset: HubDataset) -> str | None:
    """Return the commit that a data set's revision stands for; None for a folder on disk.

    Raises:
        InputError: when the hub cannot be reached or does not know it.
    """
    if Path(dataset.name).exists():
        return None
    from huggingface_hub import HfApi

    try:
        return str(HfApi().dataset_info(dataset.name, revision=dataset.revision).sha)
    except Exception as error:  # the hub's client and its transport raise many kinds
        raise InputError(_unreachable(dataset, error)) from error


def count_rows(dataset: HubDataset) -> int | None:
    """Return how many rows the data set's card says it has, None where it says nothing.

    Raises:
        InputError: when the data set cannot be reached.
    """
    import datasets

    try:
        builder = datasets.load_dataset_builder(
            dataset.name,
            dataset.config,
            revision=None if Path(dataset.name).exists() else dataset.revision,
        )
    except Exception as error:  # see _rows
        raise InputError(_unreachable(dataset, error)) from error
    splits = builder.info.splits or {}
    known = splits[dataset.split].num_examples if dataset.split in splits else None
    return int(known) if known else None


def _identity(dataset: HubDataset) -> dict[str, Any] | None:  # Any: JSON values
    """A commit never changes, and files on disk tell; a branch may go on."""
    folder = Path(dataset.name)
    if folder.exists():
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {**asdict(dataset), "files": file_marks(files)}
    return asdict(dataset) if _COMMIT.fullmatch(dataset.revision or "") else None


def _rows(dataset: HubDataset, *, after: int = 0) -> Iterator[Row]:
    import datasets

    try:
        stream = datasets.load_dataset(
            dataset.name,
            dataset.config,
            split=dataset.split,
            revision=None if Path(dataset.name).exists() else dataset.revision,
            streaming=True,
        )
        if unasked := [name for name in stream.column_names or () if name in _VECTORS]:
            stream = stream.remove_columns(unasked)
        if after:
            stream = stream.skip(after)
        rows: Iterator[Any] = iter(stream)  # Any: a row's values are checked by record_passage
        first = next(rows, None)
    except Exception as error:  # datasets, the hub's client and file readers raise many kinds
        raise InputError(_unreachable(dataset, error)) from error
    number = after
    while first is not None:
        number += 1
        yield number, _row(dataset, first)
        try:
            first = next(rows, None)
        except Exception as error:  # as above: a connection that breaks, a damaged file
            raise InputError(
                f"The data set {dataset.name} breaks off after row {number:,}: {error}"
            ) from error


def _row(dataset: HubDataset, row: Mapping[str, Any]) -> Passage | RowFault:
    names = {"id": dataset.id_field, "title": dataset.title_field, "text": dataset.text_field}
    named = {usual: name for usual, name in names.items() if name is not None}
    if missing := [name for name in named.values() if name not in row]:
        detail = f"no field {', '.join(missing)}, found: {', '.join(row)}"
        return RowFault("missing field", detail)
    return record_passage({**row, **{usual: row[name] for usual, name in named.items()}})


def _unreachable(dataset: HubDataset, error: Exception) -> str:
    where = f" at revision {dataset.revision}" if dataset.revision else ""
    part = f"config {dataset.config or 'default'}, split {dataset.split}"
    reason = " ".join(str(error).split())[:300]
    return (
        f"The data set {dataset.name} ({part}){where} cannot be read: {type(error).__name__}: "
        f"{reason}. Check its name, config and split, and the connection (HF_HUB_OFFLINE=1 "
        "forbids it); a folder of its files can be named in its place."
    )
