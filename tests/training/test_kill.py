"""Trainings that are ended by SIGKILL at any moment, and the bytes they end with."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from rag_frozen.artifacts import verify
from tests.training.rankings import only_mined, sentence_encoder, write_world

RECIPES: dict[str, dict[str, Any]] = {
    "pocket-reranker": {"max_length": 48, "lora": {"rank": 4, "alpha": 8}},
    "pocket-retriever": {"lora": {"rank": 4, "alpha": 8}, "dropout": True},
}
LOOP = {
    "name": "tiny", "seed": 5, "examples": 1_200, "batch_size": 8, "validate_every": 50,
    "checkpoint_every": 3,
}  # fmt: skip


def command(recipe: Path, root: Path) -> list[str]:
    return [
        sys.executable, "-m", "rag_frozen.cli.main", "train", str(recipe), "--root", str(root),
        "--json",
    ]  # fmt: skip


@pytest.mark.soak
@pytest.mark.parametrize("kind", RECIPES)
def test_a_training_ended_by_sigkill_ends_with_the_bytes_of_an_undisturbed_one(
    tmp_path: Path, kind: str
):
    world = write_world(tmp_path)
    encoder = sentence_encoder(world / "encoder")
    fields = {"kind": kind, "encoder": str(encoder), "data": only_mined(world), **LOOP}
    recipe = world / "tiny.yaml"
    recipe.write_text(yaml.safe_dump({**fields, **RECIPES[kind]}), encoding="utf-8")
    place = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    run = {"env": place, "check": True, "capture_output": True, "text": True}
    whole = json.loads(subprocess.run(command(recipe, world / "whole"), **run).stdout)
    rng = random.Random(3)
    killed = 0
    for _ in range(2):
        process = subprocess.Popen(
            command(recipe, world / "broken"), env=place,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        checkpoints = world / "broken" / "models" / "tiny"
        seen = set(checkpoints.glob("unfinished-*/step-*"))
        while process.poll() is None and set(checkpoints.glob("unfinished-*/step-*")) <= seen:
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 0.4))
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.wait()
    assert killed
    again = json.loads(subprocess.run(command(recipe, world / "broken"), **run).stdout)
    for name in ("model.safetensors", "config.json"):
        ours, theirs = (Path(done["folder"]) / name for done in (whole, again))
        assert ours.read_bytes() == theirs.read_bytes()
    assert whole["metrics"] == again["metrics"]
    assert verify(again["folder"], kind="model").counts["steps"] == 150
