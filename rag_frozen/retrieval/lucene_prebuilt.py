"""Pyserini's prebuilt indexes by name: where they lie, and fetching one that is not there yet.

The list of names, addresses and checksums is Pyserini's, and so is the place: its cache folder,
``PYSERINI_CACHE`` or ``~/.cache/pyserini``. An index that Pyserini fetched is found here, and the
other way round.
"""

from __future__ import annotations

import difflib
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path

from rag_frozen.errors import ArtifactMissingError, InputError
from rag_frozen.retrieval.lucene_jvm import start_jvm

__all__ = ["prebuilt_folder"]

_GIB = 2**30
_OFFLINE = "HF_HUB_OFFLINE"


def prebuilt_folder(name: str, *, fetch: bool, heap_mb: int = 1024) -> Path:
    """Return the folder of a prebuilt index, such as ``wikipedia-dpr-100w``.

    Args:
        name: as Pyserini lists it, of its indexes of words (not of vectors).
        fetch: download it where it is missing, unless ``HF_HUB_OFFLINE`` is set; progress goes to
            the standard error stream, and Pyserini compares the MD5 of what came.
        heap_mb: of the JVM that is started to read the list.

    Raises:
        InputError: when Pyserini lists no such index; names the nearest.
        ArtifactMissingError: when it is not there and is not, or cannot be, fetched.
    """
    start_jvm(heap_mb=heap_mb)
    from pyserini.prebuilt_index_info import TF_INDEX_INFO
    from pyserini.util import download_prebuilt_index, get_cache_home

    listed = TF_INDEX_INFO.get(name)
    if listed is None:
        near = ", ".join(difflib.get_close_matches(name, TF_INDEX_INFO, n=3)) or "none like it"
        raise InputError(
            f"Pyserini lists no prebuilt index {name!r}; near are: {near}. Name one of them, or "
            "the folder of an index with: path"
        )
    base = str(listed["filename"]).removesuffix(".tar.gz")
    folder = Path(get_cache_home()) / "indexes" / f"{base}.{listed['md5']}"
    if folder.is_dir():
        return folder
    size = f"{int(listed['size compressed (bytes)']) / _GIB:.1f} GiB"
    if not fetch:
        raise ArtifactMissingError(
            f"The prebuilt index {name} ({size}) is not in {folder.parent}. Fetch it with: "
            "rag-frozen index build RECIPE; or name another folder in PYSERINI_CACHE."
        )
    if os.environ.get(_OFFLINE, "") not in ("", "0"):
        raise ArtifactMissingError(
            f"The prebuilt index {name} ({size}) is not in {folder.parent}, and {_OFFLINE} "
            f"forbids to fetch it. Unset {_OFFLINE}, or unpack {listed['filename']} as {folder}"
        )
    try:
        with redirect_stdout(sys.stderr):
            return Path(download_prebuilt_index(name, verbose=True))
    except (ValueError, OSError, AssertionError) as error:
        raise ArtifactMissingError(
            f"The prebuilt index {name} ({size}) could not be fetched from "
            f"{', '.join(listed['urls'])}: {error}. Try again, or unpack {listed['filename']} "
            f"as {folder}"
        ) from error
