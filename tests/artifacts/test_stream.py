"""The unfinished run on disk: synced before it counts, and nothing foreign is gone on with."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_frozen.artifacts.stream import open_stream
from rag_frozen.errors import ArtifactDamagedError

NAMES = ("a.jsonl", "b.jsonl")


def begun(folder: Path) -> Path:
    with open_stream(folder, NAMES) as stream:
        stream.append({"a.jsonl": "one\n", "b.jsonl": "é\n"}, questions=2)
        stream.append({"a.jsonl": "two\n", "b.jsonl": ""}, questions=1)
    return folder


def test_every_file_is_synced_before_its_lines_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        real(descriptor)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("the names of open files are told by /proc alone")
    with open_stream(tmp_path / "run", NAMES) as stream:
        monkeypatch.setattr(os, "fsync", fsync)
        stream.append({"a.jsonl": "one\n", "b.jsonl": "two\n"}, questions=2)
    assert synced[:2] == ["a.jsonl", "b.jsonl"]
    assert any("progress" in name for name in synced[2:])


def test_what_counts_is_found_again_and_gone_on_with(tmp_path: Path):
    with open_stream(begun(tmp_path), NAMES) as stream:
        assert stream.done == 3
        assert stream.lines("a.jsonl") == ["one", "two"]
        assert stream.lines("b.jsonl") == ["é"]
        stream.append({"a.jsonl": "three\n"}, questions=1)
    with open_stream(tmp_path, NAMES) as stream:
        assert (stream.done, stream.lines("a.jsonl")[-1]) == (4, "three")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data.replace(b"two", b"TWO"), "is not what this run wrote"),
        (lambda data: b"another run's lines\n" * 9, "is not what this run wrote"),
        (lambda data: data[:-1], "has 7 bytes, 8 counted"),
        (lambda data: b"", "has 0 bytes, 8 counted"),
        (lambda data: None, "has 0 bytes, 8 counted"),
    ],
)
def test_a_file_that_is_not_the_runs_own_is_refused_and_left_alone(tmp_path: Path, change, said):
    path = begun(tmp_path) / "a.jsonl"
    changed = change(path.read_bytes())
    path.unlink()
    if changed is not None:
        path.write_bytes(changed)
    (tmp_path / "b.jsonl").open("ab").write(b"half")
    with pytest.raises(ArtifactDamagedError, match=rf"a\.jsonl {said}.*Nothing was overwritten"):
        open_stream(tmp_path, NAMES).__enter__()
    assert (path.read_bytes() if path.exists() else None) == changed
    assert (tmp_path / "b.jsonl").read_bytes().endswith(b"half")


def test_a_record_that_cannot_be_read_is_told(tmp_path: Path):
    for record in ("{", "[]", '{"questions": 1}', json.dumps({"questions": 1, "bytes": 3})):
        (begun(tmp_path / str(len(record))) / "progress.json").write_text(record)
        with pytest.raises(ArtifactDamagedError, match=r"progress\.json cannot be read"):
            open_stream(tmp_path / str(len(record)), NAMES).__enter__()


@settings(max_examples=10)  # each append is synced to the disk
@given(st.lists(st.text(), max_size=3), st.binary(max_size=20))
def test_whatever_is_appended_is_read_and_what_was_torn_is_cut_off(tmp_path_factory, texts, torn):
    folder = tmp_path_factory.mktemp("run")
    with open_stream(folder, NAMES) as stream:
        for text in texts:
            stream.append({"a.jsonl": text}, questions=1)
    with (folder / "a.jsonl").open("ab") as handle:
        handle.write(torn)
    with open_stream(folder, NAMES) as stream:
        assert stream.done == len(texts)
    assert (folder / "a.jsonl").read_bytes() == "".join(texts).encode()
