from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_frozen.artifacts import (
    Draft,
    ModelRecord,
    atomic_write_bytes,
    atomic_write_text,
    load_manifest,
    verify,
    write_artifact,
)
from rag_frozen.artifacts.temporary import remove_abandoned, temporary_folder
from rag_frozen.errors import ArtifactMismatchError, InputError, StorageError


def write(target: Path, content: bytes = b"data", k: int = 1) -> Draft:
    with write_artifact(target, kind="head", name="h", recipe={"k": k}) as draft:
        (draft / "a.bin").write_bytes(content)
    return draft


def test_nothing_is_at_the_target_until_all_of_it_is(tmp_path: Path) -> None:
    with write_artifact(tmp_path / "t", kind="head", name="h", recipe={}) as draft:
        (draft / "a.bin").write_bytes(b"x")
        with open(draft.folder / "b.bin", "wb") as handle:
            handle.write(b"yy")
        assert not (tmp_path / "t").exists()
        assert os.fspath(draft).startswith(str(tmp_path))
    assert sorted(path.name for path in (tmp_path / "t").iterdir()) == [
        "a.bin",
        "b.bin",
        "manifest.json",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["t"]
    assert draft.manifest == verify(tmp_path / "t")


def test_what_is_found_out_on_the_way_stands_in_the_manifest(tmp_path: Path) -> None:
    with write_artifact(
        tmp_path, kind="head", name="h", recipe={"sizes": (1, 2)}, seed=7, by_fingerprint=True
    ) as draft:
        draft.inputs["data"] = "abc"
        draft.counts["rows"] = 3
        draft.digests["ids"] = "def"
        draft.models["encoder"] = ModelRecord(name="m", digest="0")
    manifest = verify(draft.target)
    assert draft.target == tmp_path / manifest.fingerprint
    assert (manifest.inputs, manifest.counts, manifest.digests) == (
        {"data": "abc"},
        {"rows": 3},
        {"ids": "def"},
    )
    assert (manifest.seed, manifest.models["encoder"].name) == (7, "m")
    assert manifest.recipe == {"sizes": [1, 2]}


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(1)])
def test_an_error_leaves_what_was_there(tmp_path: Path, error: BaseException) -> None:
    write(tmp_path / "t")

    def fail() -> None:
        with write_artifact(tmp_path / "u", kind="head", name="h", recipe={}) as draft:
            (draft / "half").write_bytes(b"x")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["t"]
    verify(tmp_path / "t")


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_disk_that_is_full_at_the_last_moment_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(StorageError, match="bytes free"):
            write(tmp_path / "t")
    assert list(tmp_path.iterdir()) == []


def test_a_second_writer_keeps_the_first_ones_artifact(tmp_path: Path) -> None:
    first = write(tmp_path / "t", b"first")
    second = write(tmp_path / "t", b"second, with another size")
    assert (first.reused, second.reused) == (False, True)
    assert second.manifest == first.manifest
    assert (tmp_path / "t" / "a.bin").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_a_writer_that_finishes_second_keeps_the_first_ones_artifact(tmp_path: Path) -> None:
    with write_artifact(tmp_path / "t", kind="head", name="h", recipe={"k": 1}) as slow:
        (slow / "a.bin").write_bytes(b"slow")
        fast = write(tmp_path / "t", b"fast")
    assert slow.reused
    assert slow.manifest == fast.manifest
    assert (tmp_path / "t" / "a.bin").read_bytes() == b"fast"


def test_a_damaged_artifact_is_replaced_and_that_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "t")
    assert not caplog.records
    os.truncate(tmp_path / "t" / "a.bin", 1)
    assert not write(tmp_path / "t", b"again").reused
    assert f"{tmp_path / 't'} was not whole; what was built now" in caplog.text
    verify(tmp_path / "t")
    assert (tmp_path / "t" / "a.bin").read_bytes() == b"again"
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_an_unfinished_folder_under_a_fingerprint_is_replaced(tmp_path: Path) -> None:
    def build() -> Path:
        with write_artifact(
            tmp_path, kind="head", name="h", recipe={}, by_fingerprint=True
        ) as draft:
            (draft / "a").write_bytes(b"x")
        return draft.target

    (build() / "manifest.json").unlink()
    verify(build())


def test_another_artifact_is_never_overwritten(tmp_path: Path) -> None:
    write(tmp_path / "t", k=1)
    with pytest.raises(ArtifactMismatchError, match="not this head"):
        write(tmp_path / "t", k=2)
    verify(tmp_path / "t")


def test_a_users_files_are_never_removed(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    write(tmp_path / "t")  # an empty folder is no obstacle
    (tmp_path / "u").mkdir()
    (tmp_path / "u" / "thesis.txt").write_text("x")
    with pytest.raises(ArtifactMismatchError, match="no artifact of rag-frozen"):
        write(tmp_path / "u")

    def race() -> None:
        with write_artifact(tmp_path / "v", kind="head", name="h", recipe={}) as draft:
            (draft / "a").write_bytes(b"x")
            (tmp_path / "v").mkdir()
            (tmp_path / "v" / "thesis.txt").write_text("x")

    with pytest.raises(ArtifactMismatchError):
        race()
    assert (tmp_path / "u" / "thesis.txt").exists()
    assert (tmp_path / "v" / "thesis.txt").exists()
    with pytest.raises(ArtifactMismatchError, match="is a file"):
        write(tmp_path / "u" / "thesis.txt")


def test_links_and_a_manifest_of_ones_own_are_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match="is a link"),
        write_artifact(tmp_path / "t", kind="head", name="h", recipe={}) as draft,
    ):
        (draft / "link").symlink_to("/etc/hostname")
    with (
        pytest.raises(InputError, match="is written by"),
        write_artifact(tmp_path / "t", kind="head", name="h", recipe={}) as draft,
    ):
        (draft / "manifest.json").write_text("{}")
    assert list(tmp_path.iterdir()) == []


KILLED = """
import sys, time
from pathlib import Path
from rag_frozen.artifacts import write_artifact
with write_artifact(Path(sys.argv[1]), kind="head", name="h", recipe={"k": 1}) as draft:
    (draft / "a.bin").write_bytes(b"half")
    sys.stdout.write("ready")
    sys.stdout.flush()
    time.sleep(60)
"""


@pytest.fixture
def writer_in_another_process(tmp_path: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "t")], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.read(5) == b"ready"
    return process


def test_a_killed_writer_leaves_no_artifact_and_the_next_one_cleans_up(
    tmp_path: Path, writer_in_another_process: subprocess.Popen[bytes]
) -> None:
    writer_in_another_process.send_signal(signal.SIGKILL)
    writer_in_another_process.communicate()
    left = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert [path.name.startswith(".tmp-") for path in left] == [True]
    assert (left[0] / "a.bin").exists()
    write(tmp_path / "t", b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["t"]
    assert load_manifest(tmp_path / "t").files["a.bin"].size == 5


def test_a_living_writers_folder_is_left_alone(
    tmp_path: Path, writer_in_another_process: subprocess.Popen[bytes]
) -> None:
    try:
        assert remove_abandoned(tmp_path) == 0
        write(tmp_path / "t")
        assert any(path.name.startswith(".tmp-") for path in tmp_path.iterdir())
    finally:
        writer_in_another_process.kill()
        writer_in_another_process.communicate()
    assert remove_abandoned(tmp_path) == 1


def test_a_temporary_folder_without_a_lock_is_abandoned(tmp_path: Path) -> None:
    (tmp_path / ".tmp-0123").mkdir()
    (tmp_path / "kept").mkdir()
    with temporary_folder(tmp_path) as mine:
        assert remove_abandoned(tmp_path) == 0
        names = {path.name for path in tmp_path.iterdir() if path.is_dir()}
        assert names == {"kept", mine.name}


def test_a_failed_write_leaves_no_empty_folders(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    with pytest.raises(ValueError, match="stop"), temporary_folder(tmp_path / "kept" / "a" / "b"):
        raise ValueError("stop")
    assert list((tmp_path / "kept").iterdir()) == []


def test_folders_where_something_else_was_put_stay(tmp_path: Path) -> None:
    with temporary_folder(tmp_path / "a" / "b"):
        (tmp_path / "a" / "other").mkdir()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["other"]


@settings(max_examples=20)
@given(st.binary(max_size=500))
def test_an_atomically_written_file_reads_back(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "atomic" / "new" / "file"
    atomic_write_bytes(path, data)
    assert path.read_bytes() == data
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_a_failing_write_keeps_the_old_file_and_clears_what_the_dead_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    atomic_write_text(path, "old é\n")
    (tmp_path / ".a.txt.0123.part").write_text("left by a dead process")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError):
            atomic_write_text(path, "new")
    assert path.read_bytes() == "old é\n".encode()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_a_finished_artifact_is_not_older_than_its_files(tmp_path: Path) -> None:
    start = time.time()
    manifest = write(tmp_path / "t").manifest
    assert manifest is not None
    assert start - 1 <= manifest.created.timestamp() <= time.time() + 1
