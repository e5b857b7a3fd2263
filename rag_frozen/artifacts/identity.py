"""What makes two artifacts the same: hashes of recipes, of inputs and of files.

A fingerprint covers the resolved recipe and the fingerprints of what went in, never a file's name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rag_frozen.errors import InputError

__all__ = ["FINGERPRINT_LENGTH", "canonical_json", "file_sha256", "fingerprint"]

FINGERPRINT_LENGTH = 16  # hexadecimal digits: 64 bits of the SHA-256


def fingerprint(recipe: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Return the identity of what ``recipe`` makes of ``inputs``: 16 hexadecimal digits.

    ``recipe`` is anything JSON can hold (``Any``: its shape is the caller's); ``inputs`` maps
    roles to fingerprints or digests. The order of keys does not matter. Raises ``InputError``
    when a value has no JSON form.

    >>> fingerprint({"k": 1, "b": [True, None]}, {"corpus": "ab"})
    '8ad534ec9194d650'
    >>> fingerprint({"b": [True, None], "k": 1}, {"corpus": "ab"})
    '8ad534ec9194d650'
    """
    text = canonical_json({"inputs": dict(inputs), "recipe": dict(recipe)})
    return hashlib.sha256(text.encode()).hexdigest()[:FINGERPRINT_LENGTH]


def canonical_json(value: Any) -> str:
    """Return the one JSON text of ``value``: sorted keys, no spaces, no NaN, keys are strings.

    >>> canonical_json({"b": (1, 2.0), "a": "é"})
    '{"a":"é","b":[1,2.0]}'
    """
    _check_keys(value, path="")
    try:
        text = json.dumps(
            value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"A fingerprint needs plain JSON values, but: {error}") from error
    return text


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _check_keys(value: Any, *, path: str) -> None:
    """json.dumps turns the key 1 into "1"; two different recipes would then share an identity."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise InputError(
                    f"A fingerprint needs text as keys, found {key!r} at {path or 'the top'}"
                )
            _check_keys(inner, path=f"{path}/{key}")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            _check_keys(inner, path=f"{path}/{index}")
