"""Local files that trainings read: rows as JSON lines, and lists of passage ids.

Knows nothing of what rows mean.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from rag_frozen.errors import DataFormatError, InputError

__all__ = ["read_ids", "read_json_lines"]


def read_json_lines(
    path: Path, *, fields: Sequence[str] = ()
) -> Iterator[Mapping[str, Any]]:  # Any: JSON values
    """Read a ``.jsonl`` or ``.jsonl.gz`` file row by row; empty lines are passed over.

    Args:
        path: of the file, in UTF-8.
        fields: that each row must have.

    Raises:
        InputError: when the file cannot be opened, or is compressed and damaged.
        DataFormatError: for a line that is no JSON object with the fields; the message names file
            and line.
    """
    try:
        with _opened(path) as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _row(line, f"{path}, line {number}", fields)
    except (OSError, EOFError, zlib.error) as error:
        said = (error.strerror if isinstance(error, OSError) else None) or error
        raise InputError(
            f"{path} cannot be read: {said}. Check the path, and the folder of the data that the "
            "recipe or --set names."
        ) from error


def read_ids(path: Path) -> list[str]:
    """Read passage ids or patterns of them, one a line.

    Raises:
        InputError: when the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        said = (error.strerror if isinstance(error, OSError) else None) or error
        raise InputError(
            f"{path} cannot be read as a list of passage ids: {said}. Name a text file with one "
            "id a line."
        ) from error
    return [line.strip() for line in lines if line.strip()]


def _opened(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _row(line: bytes, where: str, fields: Sequence[str]) -> Mapping[str, Any]:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataFormatError(
            f"{where}: not UTF-8 (byte 0x{line[error.start]:02x}). Convert the file, such as with: "
            "iconv -f LATIN1 -t UTF-8"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataFormatError(
            f"{where}: a line is not JSON: {error}. Each line must hold one JSON object."
        ) from error
    if not isinstance(row, dict):
        raise DataFormatError(f"{where}: not a JSON object. Each line must hold one.")
    missing = [field for field in fields if field not in row]
    if missing:
        raise DataFormatError(
            f"{where}: the field {missing[0]} is missing (there are: {', '.join(row) or 'none'})."
        )
    return row
