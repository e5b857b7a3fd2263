"""Building a Lucene index of Anserini's layout: fields ``id`` and ``contents``.

Passages go to Anserini's ``SimpleIndexer``, the class behind Pyserini's ``LuceneIndexer``, in
blocks; what a block holds and Lucene's buffer are all that stands in memory. Its ``close`` logs
what goes wrong and goes on, so Lucene's writer is committed and closed from here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from rag_frozen.corpus.ids import update_ids_digest
from rag_frozen.errors import InputError
from rag_frozen.retrieval.lucene_jvm import building, cores, java, path_text, start_jvm
from rag_frozen.types import Passage

__all__ = ["INDEX_FOLDER", "Stemmer", "StopWords", "build_lucene"]

Stemmer = Literal["porter", "krovetz", "none"]
StopWords = bool | tuple[str, ...]
"""Lucene's 33 English ones, none, or a list."""

INDEX_FOLDER = "lucene"
"""Where Lucene's own files lie in an index's folder."""
_BATCH = 2_000
"""Passages that are handed to Java at once."""


def build_lucene(
    folder: Path,
    passages: Iterable[Passage],
    *,
    stemmer: Stemmer = "porter",
    stop_words: StopWords = True,
    store_contents: bool = False,
    threads: int | None = None,
    heap_mb: int = 1024,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[int, str]:
    """Index passages into an empty folder, as one segment.

    Args:
        folder: is made; holds Lucene's files in ``lucene/``.
        passages: in corpus order.
        stemmer, stop_words: for passages and questions alike.
        store_contents: keep title and text in the index too, as Pyserini's full indexes do.
        threads: that analyze passages; all cores where it is None.
        heap_mb: MiB of Java's heap, a quarter of which buffers postings.
        progress: is told the number of passages done.

    Returns:
        Number of passages, and SHA-256 over their ids in order.

    Raises:
        InputError: when a passage has neither title nor text.
        OSError: when the disk refuses; what is in the folder is then no index.
        MissingPackageError: when Pyserini or its Java is not installed.
    """
    heap_mb = start_jvm(heap_mb=heap_mb)
    from jnius import JavaException

    place = folder / INDEX_FOLDER
    place.mkdir(parents=True)
    with building(folder):
        indexer = _indexer(folder, stemmer, stop_words, store_contents, threads or cores())
        writer = indexer.writer
        writer.getConfig().setRAMBufferSizeMB(max(16.0, heap_mb / 4))
        try:
            counted = _add(indexer, passages, progress)
            writer.commit()
            writer.forceMerge(1)
            writer.commit()
        except BaseException:
            with suppress(JavaException):  # what came first is told
                writer.rollback()
            raise
        writer.close()
    (place / "write.lock").unlink(missing_ok=True)
    progress(counted[0])
    return counted


def _indexer(
    folder: Path, stemmer: Stemmer, stop_words: StopWords, store_contents: bool, threads: int
) -> Any:  # Any: a Java object
    arguments = ["-input", "", "-collection", "JsonCollection"]
    arguments += ["-index", path_text(folder / INDEX_FOLDER)]
    arguments += ["-threads", str(threads), "-stemmer", stemmer]
    arguments += ["-storeContents"] if store_contents else []
    make = java("io.anserini.index.SimpleIndexer")
    if stop_words is True:
        return make(arguments)
    if not stop_words:
        return make([*arguments, "-keepStopwords"])
    words = folder / "stop-words.txt"  # read at once
    words.write_text("".join(f"{word.lower()}\n" for word in stop_words), encoding="utf-8")
    made = make([*arguments, "-stopwords", path_text(words)])
    words.unlink()
    return made


def _add(
    indexer: Any,  # Any: a Java object
    passages: Iterable[Passage],
    progress: Callable[[int], None],
) -> tuple[int, str]:
    digest, count = sha256(), 0
    source = iter(passages)
    while batch := list(islice(source, _BATCH)):
        rows = [
            json.dumps({"id": passage.id, "contents": f"{_quoted(passage.title)}\n{passage.text}"})
            for passage in batch
        ]
        if indexer.addRawDocuments(rows) != len(batch):
            _explain(indexer.writer, batch)
        update_ids_digest(digest, [passage.id for passage in batch])
        count += len(batch)
        progress(count)
    return count, digest.hexdigest()


def _quoted(title: str) -> str:
    """A title that begins with a quotation mark is quoted as in Pyserini's collections, so that it
    can be read back."""
    return '"' + title.replace('"', '""') + '"' if title.startswith('"') else title


def _explain(writer: Any, batch: Sequence[Passage]) -> None:  # Any: a Java object
    """Raise what kept passages of a batch out of the index."""
    tragedy = writer.getTragicException()
    if tragedy is not None:
        writer.commit()  # raises it, with its cause
    empty = [passage.id for passage in batch if not f"{passage.title}{passage.text}".strip()]
    raise InputError(
        f"Lucene took not all of {len(batch):,} passages, from {batch[0].id!r} to "
        f"{batch[-1].id!r}. Without title and text are: "
        f"{', '.join(map(repr, empty[:5])) or 'none of them'}. Leave out passages that are empty."
    )
