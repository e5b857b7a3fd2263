"""Redirects followed to the articles they lead to: a table from alias to title.

Redirects and titles are gathered in a small SQLite file (memory does not grow with the wiki), and
what leads to a kept article becomes one Arrow file sorted by alias, which is searched in place.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from rag_frozen.errors import ArtifactDamagedError, ArtifactMissingError

__all__ = ["ALIASES", "AliasSpool", "AliasSummary", "AliasTable"]

ALIASES = "aliases.arrow"
_SCHEMA = pa.schema([("alias", pa.string()), ("title", pa.string())])
_BATCH = 4_096
_WAITING = 256  # rows gathered before they are written
_HOPS = 8
"""Redirects followed from one alias. MediaWiki follows one, its editors repair longer chains."""

_SETTINGS = ("journal_mode = OFF", "synchronous = OFF", "locking_mode = EXCLUSIVE",
             "cache_size = -65536")  # fmt: skip
_TABLES = ("redirect (alias TEXT PRIMARY KEY, target TEXT)", "kept (title TEXT PRIMARY KEY)")


@dataclass(frozen=True, slots=True)
class AliasSummary:
    """What came of the redirects: aliases that lead to a kept article, redirects that lead to none,
    and the SHA-256 of the table's rows."""

    n_aliases: int
    n_loose: int
    digest: str


class AliasSpool:
    """Gathers redirects and titles, then writes the table. Close it when done.

    A journal beside the working file holds what was gathered since ``take_journal`` was called
    last, so that another spool comes to the same by ``restore``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._n_journals = 0
        self._journals: list[Path] = []
        self._begin_journal()
        self._redirects: list[tuple[str, str]] = []
        self._kept: list[tuple[str]] = []
        with _disk_errors(path):
            self._database = sqlite3.connect(path, isolation_level=None)
            for setting in _SETTINGS:
                self._database.execute(f"PRAGMA {setting}")
            for table in _TABLES:
                self._database.execute(f"CREATE TABLE {table} WITHOUT ROWID")

    def redirect(self, alias: str, target: str) -> None:
        """Add a redirect; the first of an alias counts."""
        self._redirects.append((alias, target))
        if len(self._redirects) == _WAITING:
            self._flush()

    def keep(self, title: str) -> None:
        """Add the title of a kept article."""
        self._kept.append((title,))
        if len(self._kept) == _WAITING:
            self._flush()

    def take_journal(self) -> Path:
        """End the journal and return it; another begins. It is removed by ``close``."""
        self._flush()
        self._journal.close()
        self._n_journals += 1
        self._begin_journal()
        return self._journals[-2]

    def restore(self, journal: Path) -> None:
        """Gather what a journal of another spool holds; it is not written into this one's."""
        with journal.open(encoding="ascii") as lines:
            for line in lines:
                values = json.loads(line)
                if len(values) == 1:
                    self._kept.append((values[0],))
                else:
                    self._redirects.append((values[0], values[1]))
                if len(self._kept) + len(self._redirects) >= _WAITING:
                    self._insert()
        self._insert()
        self._n_journals += 1
        self._journal.close()
        self._begin_journal()

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Yield each alias that leads to a kept article with that article's title, by alias."""
        self._flush()
        with _disk_errors(self._path):
            for alias, target in self._database.execute(
                "SELECT alias, target FROM redirect ORDER BY alias"
            ):
                if (title := self._follow(alias, target)) is not None:
                    yield alias, title

    def write(
        self, path: Path, *, wanted: Callable[[str], bool] = lambda title: True
    ) -> AliasSummary:
        """Write the table to a file; ``wanted`` says of a kept article's title whether it stays."""
        digest = hashlib.sha256()
        n_aliases = 0
        batch: list[tuple[str, str]] = []
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
            for alias, title in self.pairs():
                if not wanted(title):
                    continue
                n_aliases += 1
                digest.update(f"{alias}\0{title}\0".encode())
                batch.append((alias, title))
                if len(batch) == _BATCH:
                    _write_batch(writer, batch)
                    batch = []
            if batch:
                _write_batch(writer, batch)
        n_all = self._database.execute("SELECT count(*) FROM redirect").fetchone()[0]
        return AliasSummary(n_aliases, int(n_all) - n_aliases, digest.hexdigest())

    def close(self) -> None:
        """Remove the working files."""
        self._database.close()
        with suppress(OSError):  # a full disk refuses what was not written yet
            self._journal.close()
        for path in (self._path, *self._journals):
            path.unlink(missing_ok=True)

    def _follow(self, alias: str, target: str) -> str | None:
        met = {alias}
        for _ in range(_HOPS):
            if self._one("SELECT title FROM kept WHERE title = ?", target) is not None:
                return None if target == alias else target
            following = self._one("SELECT target FROM redirect WHERE alias = ?", target)
            if following is None or target in met:
                return None
            met.add(target)
            target = following
        return None

    def _one(self, query: str, value: str) -> str | None:
        row = self._database.execute(query, (value,)).fetchone()
        return None if row is None else str(row[0])

    def _begin_journal(self) -> None:
        name = f"{self._path.name}-{self._n_journals:05d}.journal"
        self._journals.append(self._path.with_name(name))
        self._journal = self._journals[-1].open("w", encoding="ascii")

    def _flush(self) -> None:
        lines = [f"{json.dumps(values)}\n" for values in (*self._redirects, *self._kept)]
        self._journal.writelines(lines)
        self._insert()

    def _insert(self) -> None:
        with _disk_errors(self._path):
            self._database.execute("BEGIN")
            self._database.executemany(
                "INSERT OR IGNORE INTO redirect VALUES (?, ?)", self._redirects
            )
            self._database.executemany("INSERT OR IGNORE INTO kept VALUES (?)", self._kept)
            self._database.execute("COMMIT")
        self._redirects, self._kept = [], []


class AliasTable:
    """The aliases of a corpus that was made from a dump, searched on disk."""

    def __init__(self, folder: str | Path) -> None:
        """Open the table of a corpus artifact.

        Raises:
            ArtifactMissingError: when the corpus has none; it was not made from a dump.
            ArtifactDamagedError: when it cannot be read.
        """
        path = Path(folder) / ALIASES
        try:
            self._reader = pa.ipc.open_file(pa.memory_map(str(path)))
        except FileNotFoundError as error:
            raise ArtifactMissingError(
                f"The corpus in {folder} has no aliases. Corpora of the kind mediawiki have them: "
                "build one with: rag-frozen index build wiki-dump --set corpus.path=DUMP"
            ) from error
        except (OSError, ValueError) as error:
            raise ArtifactDamagedError(f"{path} cannot be read: {error}") from error
        self._batches = self._reader.num_record_batches

    def __len__(self) -> int:
        if not self._batches:
            return 0
        last = self._reader.get_batch(self._batches - 1).num_rows
        return int((self._batches - 1) * _BATCH + last)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """All (alias, title) pairs, sorted by alias."""
        for number in range(self._batches):
            aliases, titles = self._reader.get_batch(number).columns
            yield from zip(aliases.to_pylist(), titles.to_pylist(), strict=True)

    def find(self, alias: str) -> str | None:
        """Return the title that an alias leads to, None when it is no alias."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self._at(middle, 0) < alias:
                low = middle + 1
            else:
                high = middle
        return self._at(low, 1) if low < len(self) and self._at(low, 0) == alias else None

    def _at(self, row: int, column: int) -> str:
        batch, place = divmod(row, _BATCH)
        return str(self._reader.get_batch(batch).column(column)[place].as_py())


def _write_batch(writer: pa.RecordBatchFileWriter, batch: list[tuple[str, str]]) -> None:
    columns = [pa.array(column, pa.string()) for column in zip(*batch, strict=True)]
    writer.write_batch(pa.record_batch(columns, schema=_SCHEMA))


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """SQLite reports a full disk in words of its own."""
    try:
        yield
    except sqlite3.OperationalError as error:
        code = errno.ENOSPC if "full" in str(error) else errno.EIO
        raise OSError(code, os.strerror(code), str(path)) from error
