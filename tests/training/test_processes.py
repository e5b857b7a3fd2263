"""A batch shared by several processes, and two that train together on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_frozen.errors import InputError
from rag_frozen.training.processes import ALONE, Share, join_processes
from tests.tiny import save_bert, save_reader_and_rows
from tests.training.rankings import sentence_encoder, write_world


@given(st.lists(st.integers(), max_size=40, unique=True), st.integers(1, 5))
def test_shares_are_of_equal_size_and_hold_each_row_once(rows, count):
    shares = [Share(index, count).take(rows) for index in range(count)]
    assert len({len(share) for share in shares}) == 1
    taken = [row for share in shares for row in share]
    assert sorted(taken) == sorted(rows[: len(rows) - len(rows) % count])


def test_a_batch_that_cannot_be_shared_evenly_is_refused():
    Share(0, 2).check(8)
    ALONE.check(7)
    with pytest.raises(InputError, match="multiple of 3"):
        Share(0, 3).check(8)


def test_a_training_that_was_started_alone_is_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join_processes() is ALONE


@pytest.mark.soak
def test_two_processes_agree_with_one_and_with_each_other(tmp_path: Path):
    world = write_world(tmp_path)
    sentence_encoder(world / "encoder")
    save_bert(world / "classifier", kind="BertForSequenceClassification")
    prompts = tmp_path / "prompts"
    save_reader_and_rows(prompts)
    root = Path(__file__).parents[2]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone",
        str(Path(__file__).with_name("share_worker.py")), str(world), str(prompts),
        str(tmp_path / "out"),
    ]  # fmt: skip
    place = {
        **os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1",
    }  # fmt: skip
    done = subprocess.run(command, env=place, cwd=root, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3_000:]
    assert (tmp_path / "out" / "agreed").read_text(encoding="utf-8") == "yes"
