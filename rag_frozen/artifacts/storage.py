"""Disks that refuse: turning the system's errors into a ``StorageError`` that helps.

Knows nothing about artifacts. Rust and C++ libraries report a full disk in exceptions of their
own; their texts are read here, and only here.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rag_frozen.errors import RagFrozenError, StorageError

__all__ = ["link_or_copy", "make_folder", "storage_error", "storage_errors", "sync_folder"]

_FULL = {errno.ENOSPC, errno.EDQUOT}
_REFUSED = {errno.EACCES, errno.EPERM}
_HANDLED = _FULL | _REFUSED | {errno.EROFS, errno.ENOTDIR, errno.EISDIR}
_FOREIGN = re.compile(r"os error (\d+)|\berrno:? (\d+)|Os \{ code: (\d+)", re.IGNORECASE)
_SHORT = re.compile(r"\d+ requested and \d+ written")  # numpy's ndarray.tofile, np.save
_GIB = 2**30


@contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Raise ``StorageError`` in place of a full disk, a read-only folder or a refused permission.

    ``folder`` is what is being written to; other errors pass through unchanged.
    """
    try:
        yield
    except RagFrozenError:
        raise
    except Exception as error:
        converted = storage_error(error, folder)
        if converted is None:
            raise
        raise converted from error


def storage_error(error: Exception, folder: Path) -> StorageError | None:
    """Return the ``StorageError`` that ``error`` stands for, or None when it is something else.

    An error that names a file outside ``folder`` (an unreadable input, say) is something else.
    """
    code = _code_of(error)
    if code not in _HANDLED:
        return None
    named = error.filename if isinstance(error, OSError) else None
    if isinstance(named, str | bytes) and not _touches(Path(os.fsdecode(named)), folder):
        return None
    return StorageError(f"Cannot write to {folder}: {os.strerror(code)}. {_advice(code, folder)}")


def link_or_copy(finished: Path, place: Path) -> None:
    """Let a finished file, which nobody changes any more, stand in another place too: as a hard
    link, or as a copy on a file system without links. What stands there already is kept."""
    try:
        os.link(finished, place)
    except FileExistsError:
        return
    except OSError:
        partial = place.with_name(f"{place.name}.partial")
        shutil.copyfile(finished, partial)
        os.replace(partial, place)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents; a file in their place gives ``NotADirectoryError``, a file
    system without new folders ``PermissionError``."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from error
    except FileNotFoundError as error:  # parents are made: a file system such as /proc makes none
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(folder)) from error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable; systems that cannot sync a folder are left alone."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _code_of(error: Exception) -> int:
    """The system's error number, 0 when there is none."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    text = str(error)
    if match := _FOREIGN.search(text):
        return int(next(group for group in match.groups() if group))
    full = os.strerror(errno.ENOSPC) in text or _SHORT.search(text)
    return errno.ENOSPC if full else 0


def _touches(named: Path, folder: Path) -> bool:
    """Whether a path is the folder, lies in it, or is one of its parents (mkdir names those)."""
    left, right = Path(os.path.abspath(named)), Path(os.path.abspath(folder))
    return left.is_relative_to(right) or right.is_relative_to(left)


def _advice(code: int, folder: Path) -> str:
    elsewhere = "choose another folder with --root or RAG_FROZEN_HOME"
    if code == errno.ENOTDIR:
        return f"A part of this path is a file, not a folder; {elsewhere}."
    if code == errno.EISDIR:
        return "A folder stands where the file is to be; name another file."
    if code in _REFUSED:
        return f"Make the folder writable for this user, or {elsewhere}."
    disk = _disk_of(folder)
    usage = shutil.disk_usage(disk)
    size = (
        f"The disk mounted at {disk} has {usage.free:,} bytes free "
        f"of {usage.total:,} ({usage.free / _GIB:.2f} of {usage.total / _GIB:.2f} GiB)"
    )
    if code == errno.EROFS:
        return f"{size} and is mounted read-only; {elsewhere}."
    return f"{size}. Free some space there, or {elsewhere}."


def _disk_of(folder: Path) -> Path:
    """The mount point that holds a folder, which need not exist yet."""
    path = Path(os.path.realpath(folder))
    while not os.path.ismount(path) and path != path.parent:
        path = path.parent
    return path
