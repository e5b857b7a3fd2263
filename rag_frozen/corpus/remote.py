"""Corpus files that lie elsewhere than on a disk: ``s3://…``, ``gs://…`` and the other addresses of
fsspec, as paths that are read like local ones.

Knows addresses and opening; what a file holds is read by others.
"""

from __future__ import annotations

from io import BufferedReader
from pathlib import Path
from typing import Any, cast

from rag_frozen.errors import InputError, MissingPackageError

__all__ = ["is_address", "open_bytes", "source_path"]


def is_address(place: object) -> bool:
    """True for a text such as ``s3://bucket/dump.xml.bz2``.

    >>> is_address("s3://bucket/rows.jsonl"), is_address("rows.jsonl"), is_address("C:/rows.jsonl")
    (True, False, False)
    """
    return isinstance(place, str) and "://" in place


def source_path(place: str | Path) -> Path:
    """Return the path of a file or folder; an address becomes one that reads through fsspec.

    Raises:
        MissingPackageError: when the package for such addresses is not installed.
        InputError: when an address is of no kind that fsspec knows, or its storage does not answer.
    """
    if not is_address(place):
        return Path(place) if isinstance(place, str) else place
    try:
        from upath import UPath
    except ImportError as error:
        raise MissingPackageError(
            f"Reading {place} needs the package universal-pathlib. Install it with: "
            "pip install 'rag-frozen[remote]'"
        ) from error
    try:
        path = UPath(place)
        path.exists()
    except ImportError as error:
        raise MissingPackageError(
            f"{place} cannot be read: {error}. Install that package with pip."
        ) from error
    except Exception as error:  # each storage has errors of its own, without a common base
        raise InputError(
            f"{place} cannot be read: {error} Check the address and how this machine signs in to "
            "the storage, or copy the file to a disk."
        ) from error
    return cast(Path, path)  # it does all that is asked of a path here


def open_bytes(path: Path) -> BufferedReader:
    """Open a path of :func:`source_path` for reading bytes.

    Raises:
        OSError: as ``Path.open`` does.
    """
    handle: Any = path.open("rb")  # Any: of fsspec, a raw stream in all but its type
    return handle if isinstance(handle, BufferedReader) else BufferedReader(handle)
