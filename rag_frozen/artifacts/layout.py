"""Where artifacts lie: ``<root>/<kind, plural>/<name>/<fingerprint>/``.

Knows folders and names only; nothing about what an artifact holds.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal, get_args

import platformdirs

from rag_frozen.errors import InputError

__all__ = [
    "HOME_VARIABLE",
    "MANIFEST_NAME",
    "ArtifactKind",
    "artifact_folder",
    "artifact_root",
    "list_artifacts",
    "name_folder",
]

ArtifactKind = Literal["ablation", "corpus", "head", "index", "model", "run"]

HOME_VARIABLE = "RAG_FROZEN_HOME"
MANIFEST_NAME = "manifest.json"

_FOLDERS: dict[ArtifactKind, str] = {
    "ablation": "ablations",
    "corpus": "corpora",
    "head": "heads",
    "index": "indexes",
    "model": "models",
    "run": "runs",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def artifact_root(root: str | Path | None = None) -> Path:
    """Return the folder that holds all artifacts, as an absolute path; it need not exist yet.

    An explicit ``root`` wins, then the variable ``RAG_FROZEN_HOME`` when it is not empty, then the
    platform's cache folder for this user.
    """
    chosen = root if root is not None else os.environ.get(HOME_VARIABLE) or None
    if chosen is None:
        return platformdirs.user_cache_path("rag-frozen", appauthor=False)
    return Path(os.path.abspath(Path(chosen).expanduser()))


def name_folder(root: str | Path | None, kind: ArtifactKind, *, name: str) -> Path:
    """Return the folder of all builds of one artifact: ``<root>/corpora/pocket``.

    Raises ``InputError`` for a name that could not be one folder.

    >>> name_folder("/data", "corpus", name="pocket").as_posix()
    '/data/corpora/pocket'
    """
    if kind not in get_args(ArtifactKind):
        kinds = ", ".join(get_args(ArtifactKind))
        raise InputError(f"{kind!r} is no kind of artifact. Use one of: {kinds}")
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name!r} cannot name a {kind}: use at most 128 letters, digits, dots, dashes and "
            "underscores, beginning with a letter or a digit"
        )
    return artifact_root(root) / _FOLDERS[kind] / name


def artifact_folder(
    root: str | Path | None, kind: ArtifactKind, *, name: str, fingerprint: str
) -> Path:
    """Return the folder of one build of an artifact.

    >>> artifact_folder("/data", "index", name="bm25", fingerprint="0123456789abcdef").as_posix()
    '/data/indexes/bm25/0123456789abcdef'
    """
    if not _NAME.fullmatch(fingerprint):
        raise InputError(f"{fingerprint!r} is no fingerprint: 16 hexadecimal digits are expected")
    return name_folder(root, kind, name=name) / fingerprint


def list_artifacts(
    root: str | Path | None, kind: ArtifactKind, *, name: str | None = None
) -> tuple[Path, ...]:
    """Return the folders of all finished artifacts of a kind, sorted by path.

    ``name`` restricts them to one name's builds. A folder without a manifest is not finished and
    is left out, as are temporary folders (their names begin with a dot).
    """
    if name is None:
        top = artifact_root(root) / _FOLDERS[kind]
        named = [folder for folder in _subfolders(top) if _NAME.fullmatch(folder.name)]
    else:
        named = [name_folder(root, kind, name=name)]
    builds = [build for folder in named for build in _subfolders(folder)]
    return tuple(sorted(build for build in builds if (build / MANIFEST_NAME).is_file()))


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [entry for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != "."]
