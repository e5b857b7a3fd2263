from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from rag_frozen.artifacts import (
    atomic_write_text,
    storage_error,
    storage_errors,
    write_artifact,
)
from rag_frozen.errors import InputError, StorageError

from .disks import small_disk


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        ValueError("An IO error occurred: 'No space left on device (os error 28)'"),
        RuntimeError("Error while serializing: IoError(Os { code: 28, kind: StorageFull })"),
        OSError("write failed: [Errno 28] oh"),
        OSError("20000 requested and 12272 written"),
    ],
)
def test_a_full_disk_is_told_with_its_free_bytes(tmp_path: Path, error: Exception) -> None:
    converted = storage_error(error, tmp_path / "not" / "yet")
    assert isinstance(converted, StorageError)
    assert "bytes free" in str(converted)
    assert "RAG_FROZEN_HOME" in str(converted)
    assert str(tmp_path) in str(converted)


def test_a_refused_and_a_read_only_folder_are_told_apart(tmp_path: Path) -> None:
    refused = storage_error(PermissionError(errno.EACCES, "x", str(tmp_path / "f")), tmp_path)
    read_only = storage_error(OSError(errno.EROFS, "x"), tmp_path)
    assert "Make the folder writable" in str(refused)
    assert "mounted read-only" in str(read_only)


def test_other_errors_are_not_the_disks(tmp_path: Path) -> None:
    assert storage_error(ValueError("row 28 is wrong"), tmp_path) is None
    assert storage_error(FileNotFoundError(errno.ENOENT, "x", str(tmp_path)), tmp_path) is None
    elsewhere = PermissionError(errno.EACCES, "x", "/some/input.jsonl")
    assert storage_error(elsewhere, tmp_path) is None
    with pytest.raises(KeyError), storage_errors(tmp_path):
        raise KeyError("x")
    with pytest.raises(InputError), storage_errors(tmp_path):
        raise InputError("No space left on device")


def test_a_file_where_a_folder_should_be_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(StorageError, match="is a file, not a folder"),
        write_artifact(tmp_path / "file" / "a", kind="run", name="a", recipe={}),
    ):
        pass
    with pytest.raises(StorageError):
        atomic_write_text(tmp_path / "file" / "x.txt", "y")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", kib=256) as folder:
        yield folder


def test_a_disk_that_fills_up_leaves_nothing_behind(disk: Path) -> None:
    def fill() -> None:
        with write_artifact(disk / "a", kind="run", name="a", recipe={}) as draft:
            (draft / "small").write_bytes(b"x" * 1000)
            (draft / "large").write_bytes(b"x" * 1_000_000)

    with pytest.raises(StorageError, match=f"mounted at {disk} has 0 bytes free"):
        fill()
    assert list(disk.iterdir()) == []


def test_a_full_disk_keeps_the_file_that_was_there(disk: Path) -> None:
    atomic_write_text(disk / "a.txt", "old")
    with pytest.raises(StorageError, match="bytes free"):
        atomic_write_text(disk / "a.txt", "new" * 1_000_000)
    assert [path.name for path in disk.iterdir()] == ["a.txt"]
    assert (disk / "a.txt").read_text() == "old"
