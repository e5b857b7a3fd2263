"""The wheel carries what it needs: built, installed into a folder, used from another one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_wheel_answers_from_another_folder(tmp_path: Path):
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    wheel = next(tmp_path.glob("*.whl"))
    names = zipfile.ZipFile(wheel).namelist()
    assert "rag_frozen/_recipes/pipelines/pocket.yaml" in names
    assert "rag_frozen/pocket/encyclopedia/passages.jsonl" in names
    assert not any(name.startswith("tests/") for name in names)
    assert wheel.stat().st_size < 40 * 2**20
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index",
         "--target", tmp_path / "site", wheel],
        check=True,
    )  # fmt: skip
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code = (
        "import json, rag_frozen; answer = rag_frozen.ask('what is the capital of iceland'); "
        "print(json.dumps([rag_frozen.__file__, answer.text, len(answer.evidence)]))"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": str(tmp_path / "site"),
        "RAG_FROZEN_HOME": str(tmp_path / "home"),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=elsewhere, env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    file, text, n_evidence = json.loads(done.stdout)
    assert Path(file).is_relative_to(tmp_path / "site")
    assert text
    assert n_evidence == 2
