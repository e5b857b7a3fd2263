"""Temporary folders and files that outlive nobody.

Each is held by an advisory lock on a file, which the system releases when its process dies, however
it dies. So whoever comes next can tell an abandoned one from one in use, without process ids (which
are reused, and mean nothing across containers that share a disk).
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rag_frozen.artifacts.storage import make_folder

try:
    import fcntl
except ImportError:  # Windows: nothing is locked, and nothing abandoned is cleaned up
    fcntl = None  # type: ignore[assignment]

__all__ = ["held_folder", "remove_abandoned", "temporary_file", "temporary_folder"]

_PREFIX = ".tmp-"
_LOCK = ".lock"
_FILE = ".part"
_log = logging.getLogger(__name__)


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Yield a new empty folder in ``parent``, which is made when missing.

    Whatever of it is still there at the end is removed, and so are the folders that were made for
    it, where nothing was put. Folders that dead processes left in ``parent`` are removed first.
    """
    made = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    remove_abandoned(parent)
    lock, descriptor = _claim(
        lambda: parent / f"{_PREFIX}{secrets.token_hex(8)}{_LOCK}", folders=True
    )
    folder = lock.with_suffix("")
    try:
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.unlink(missing_ok=True)
        os.close(descriptor)
        with suppress(OSError):  # something stands there
            for empty in made:
                empty.rmdir()


@contextmanager
def held_folder(folder: Path) -> Iterator[bool]:
    """Hold a folder of work that outlives its process, which is made when missing.

    Yields False when a living process holds it. The lock's file stays beside the work; removing the
    folder while it is held is fine.
    """
    make_folder(folder)
    descriptor = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        yield _lock(descriptor) is not False
    finally:
        os.close(descriptor)


@contextmanager
def temporary_file(target: Path) -> Iterator[Path]:
    """Yield the path of a new empty file beside ``target``; what is left of it is removed."""
    start = f".{target.name}."
    for path in _entries(target.parent):
        if path.name.startswith(start) and path.name.endswith(_FILE):
            _remove_if_abandoned(path)
    path, descriptor = _claim(lambda: target.parent / f"{start}{secrets.token_hex(8)}{_FILE}")
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def remove_abandoned(parent: Path) -> int:
    """Remove the temporary folders in ``parent`` whose processes are dead; return how many."""
    if fcntl is None:
        return 0
    removed = 0
    for path in _entries(parent):
        if not path.name.startswith(_PREFIX):
            continue
        if path.name.endswith(_LOCK):
            removed += _remove_if_abandoned(path)
        elif path.is_dir() and not path.with_name(path.name + _LOCK).exists():
            shutil.rmtree(path, ignore_errors=True)
            removed += 1
    if removed:
        _log.info("Removed %d unfinished folders of dead processes in %s", removed, parent)
    return removed


def _claim(name: Callable[[], Path], *, folders: bool = False) -> tuple[Path, int]:
    """Make and lock a new file, with ``folders`` its folders too; return its path and its
    descriptor, which holds the lock."""
    while True:
        path = name()
        if folders:
            make_folder(path.parent)  # who made it before may have removed it, empty
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        except FileNotFoundError:
            if folders:
                continue
            raise
        # Between the making and the locking another process may take the file for abandoned and
        # remove it. Then the path no longer leads to it, and a new one is made.
        if _lock(descriptor) is not False and _leads_to(path, descriptor):
            return path, descriptor
        os.close(descriptor)


def _remove_if_abandoned(path: Path) -> bool:
    """Remove a lock file, and the folder it stands for, unless a living process holds it."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:  # gone in the meantime, or not ours to touch
        return False
    try:
        if _lock(descriptor) is not True or not _leads_to(path, descriptor):
            return False
        if path.name.endswith(_LOCK):
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
        with suppress(OSError):
            path.unlink()
        return True
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
    """Whether the lock was got; None where there are no locks, and so nothing can be judged."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
        _log.debug("This file system has no locks: %s", error)
        return None
    return True


def _leads_to(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
