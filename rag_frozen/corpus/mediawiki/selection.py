"""A small wiki of the articles that people ask about: those that many link to and redirect to.

R2-D2 (Fajcik et al. 2021) prunes Wikipedia to a twelfth with a classifier trained on passages that
held answers. This is its idea without training: an article's score is a weighted sum
of the logarithms of its inbound links (from the dump's own articles, after redirects), of the
redirects to it and of its words. Titles are known by 64-bit hashes, some 40 bytes an article and
redirect; passages wait in a file until all links are counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rag_frozen.corpus.ids import hash_ids
from rag_frozen.corpus.mediawiki.articles import Article
from rag_frozen.errors import InputError
from rag_frozen.types import Passage

__all__ = ["SCORES", "Selection", "Selector"]

SCORES = "scores.arrow"
_PASSAGES = pa.schema(
    [("article", pa.int64()), ("id", pa.string()), ("title", pa.string()), ("text", pa.string())]
)
_SCORES = pa.schema(
    [
        ("page_id", pa.int64()),
        ("title", pa.string()),
        ("inbound", pa.int64()),
        ("redirects", pa.int64()),
        ("words", pa.int64()),
        ("score", pa.float64()),
        ("kept", pa.bool_()),
    ]
)
_TITLES = pa.schema([("title", pa.string()), ("page_id", pa.int64()), ("words", pa.int64())])
_KINDS = ("passages", "titles", "links")
_BATCH = 4_096
_COUNTED = 2**18  # link hashes counted at once

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which articles stay: the ``articles`` best, or the best ``share`` in (0, 1] of all.

    Score: ``links`` · ln(1 + inbound links) + ``redirects`` · ln(1 + redirects) + ``words`` ·
    ln(1 + words). The weights are ours. Equal scores are ordered as in the dump.
    """

    articles: int | None = None
    share: float | None = None
    links: float = 1.0
    redirects: float = 0.5
    words: float = 0.25

    def n_kept(self, n_articles: int) -> int:
        """How many of so many articles stay.

        >>> Selection(share=0.25).n_kept(10), Selection(articles=4).n_kept(3)
        (3, 3)

        Raises:
            InputError: when not exactly one of ``articles`` and ``share`` is given.
        """
        if (self.articles is None) == (self.share is None):
            raise InputError("A selection needs either a number of articles or their share.")
        if self.articles is not None:
            return min(self.articles, n_articles)
        return int(np.ceil((self.share or 0.0) * n_articles))


class Selector:
    """Gathers articles, then yields the passages of those that stay. Close it when done.

    What waits lies in parts; one that was ended by ``save`` stays as it is, and another selector
    comes to the same with ``restore``.
    """

    def __init__(self, work: Path) -> None:
        """Keep what waits in files of ``work`` that begin with a dot."""
        self._work = work
        self._parts: list[dict[str, Path]] = []
        self._page_ids: list[npt.NDArray[np.int64]] = []
        self._words: list[npt.NDArray[np.int64]] = []
        self._hashes: list[npt.NDArray[np.uint64]] = []
        self._waiting: list[Article] = []
        self._n = 0
        self._gathered = 0
        self._closed = True
        self._begin_part()

    @property
    def gathered(self) -> int:
        """Passages of the articles added since ``save`` was called last."""
        return self._gathered

    def add(self, article: Article) -> None:
        """Add an article with its passages and links."""
        self._waiting.append(article)
        self._gathered += len(article.passages)
        if len(self._waiting) == _BATCH // 8:
            self._flush()

    def save(self) -> tuple[Path, ...]:
        """End a part and return its files, which ``close`` removes; another part begins."""
        self._flush()
        self._close_files()
        saved = tuple(self._parts[-1].values())
        self._begin_part()
        self._gathered = 0
        return saved

    def restore(self, files: Sequence[Path]) -> None:
        """Take in a part that another selector saved, before any article is added."""
        part = {name: next(p for p in files if p.name.startswith(f".{name}-")) for name in _KINDS}
        self._close_files()
        empty = self._parts.pop()
        for path in empty.values():
            path.unlink(missing_ok=True)
        for batch in _read_batches(part["titles"]):
            titles, page_ids, words = batch.columns
            self._hashes.append(hash_ids(titles.to_pylist()))
            self._page_ids.append(page_ids.to_numpy().copy())
            self._words.append(words.to_numpy().copy())
            self._n += batch.num_rows
        self._parts.append(part)
        self._begin_part()

    def select(self, selection: Selection, aliases: Iterable[tuple[str, str]], scores: Path) -> int:
        """Count links, score all articles, write their scores; return how many stay.

        Args:
            selection: how many stay.
            aliases: (alias, title of an article) pairs.
            scores: the Arrow file to write: page_id, title, inbound, redirects, words, score, kept.
        """
        self._flush()
        self._close_files()
        page_ids = _joined(self._page_ids, np.int64)
        words = _joined(self._words, np.int64)
        hashes = _joined(self._hashes, np.uint64)
        redirects, known, leads_to = _resolve(hashes, aliases)
        inbound = self._count_links(known, leads_to, len(hashes))
        score = (
            selection.links * np.log1p(inbound)
            + selection.redirects * np.log1p(redirects)
            + selection.words * np.log1p(words)
        )
        best = np.argsort(-score, kind="stable")[: selection.n_kept(len(score))]
        self._kept = np.zeros(len(score), dtype=bool)
        self._kept[best] = True
        self._kept_hashes = np.sort(hashes[self._kept])
        self._kept_words = int(words[self._kept].sum())
        self._write_scores(scores, page_ids, inbound, redirects, words, score)
        return len(best)

    @property
    def kept_words(self) -> int:
        """Words of the articles that stay, after ``select``."""
        return self._kept_words

    def stays(self, title: str) -> bool:
        """Whether an article of this title stays, after ``select``."""
        mark = hash_ids([title])[0]
        place = int(np.searchsorted(self._kept_hashes, mark))
        return place < len(self._kept_hashes) and bool(self._kept_hashes[place] == mark)

    def passages(self) -> Iterator[Passage]:
        """Yield the passages of the articles that stay, in the dump's order, after ``select``."""
        for part in self._parts:
            for batch in _read_batches(part["passages"]):
                stays = self._kept[batch.column(0).to_numpy()]
                kept = batch.filter(pa.array(stays))
                columns = [kept.column(place).to_pylist() for place in (1, 2, 3)]
                for values in zip(*columns, strict=True):
                    yield Passage(*values)

    def close(self) -> None:
        """Remove the working files."""
        with suppress(OSError, pa.ArrowException):  # a full disk refuses even an ending
            self._close_files()
        for path in (path for part in self._parts for path in part.values()):
            if path.parent == self._work:  # others lie where they were saved
                path.unlink(missing_ok=True)

    def _begin_part(self) -> None:
        number = len(self._parts)
        paths = {name: self._work / f".{name}-{number:05d}.spool" for name in _KINDS}
        self._parts.append(paths)
        self._sinks = {name: pa.OSFile(str(path), "wb") for name, path in paths.items()}
        self._passages = pa.ipc.new_file(self._sinks["passages"], _PASSAGES)
        self._titles = pa.ipc.new_file(self._sinks["titles"], _TITLES)
        self._closed = False

    def _flush(self) -> None:
        articles, self._waiting = self._waiting, []
        if not articles:
            return
        titles = [article.title for article in articles]
        self._page_ids.append(np.array([article.page_id for article in articles], dtype=np.int64))
        self._words.append(np.array([article.n_words for article in articles], dtype=np.int64))
        self._hashes.append(hash_ids(titles))
        columns = [pa.array(titles), pa.array(self._page_ids[-1]), pa.array(self._words[-1])]
        self._titles.write_batch(pa.record_batch(columns, schema=_TITLES))
        links = [link for article in articles for link in article.links]
        self._sinks["links"].write(hash_ids(links).astype("<u8").tobytes())
        rows = [
            (self._n + place, f"{article.page_id}-{number}", article.title, text)
            for place, article in enumerate(articles)
            for number, text in enumerate(article.passages)
        ]
        for start in range(0, len(rows), _BATCH):
            values = list(zip(*rows[start : start + _BATCH], strict=True))
            arrays = [pa.array(c, f.type) for c, f in zip(values, _PASSAGES, strict=True)]
            self._passages.write_batch(pa.record_batch(arrays, schema=_PASSAGES))
        self._n += len(articles)

    def _close_files(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._passages.close()
        self._titles.close()
        for sink in self._sinks.values():
            sink.close()

    def _count_links(
        self, known: npt.NDArray[np.uint64], leads_to: Counts, n_articles: int
    ) -> Counts:
        """How many articles link to each; links to nothing that is kept count for none."""
        counts = np.zeros(n_articles, dtype=np.int64)
        for part in self._parts if len(known) else ():
            with part["links"].open("rb") as handle:
                while data := handle.read(8 * _COUNTED):
                    links = np.frombuffer(data, dtype="<u8").astype(np.uint64, copy=False)
                    places = np.minimum(np.searchsorted(known, links), len(known) - 1)
                    found = leads_to[places[known[places] == links]]
                    counts += np.bincount(found, minlength=n_articles)
        return counts

    def _write_scores(
        self,
        path: Path,
        page_ids: Counts,
        inbound: Counts,
        redirects: Counts,
        words: Counts,
        score: npt.NDArray[np.float64],
    ) -> None:
        columns = (inbound, redirects, words, score, self._kept)
        at = 0
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, _SCORES) as writer:
            for batch in (one for part in self._parts for one in _read_batches(part["titles"])):
                titles = batch.column(0)
                here = slice(at, at + len(titles))
                arrays = [pa.array(page_ids[here]), titles, *(pa.array(c[here]) for c in columns)]
                writer.write_batch(pa.record_batch(arrays, schema=_SCORES))
                at += len(titles)


def _read_batches(path: Path) -> Iterator[pa.RecordBatch]:
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)


def _resolve(
    hashes: npt.NDArray[np.uint64], aliases: Iterable[tuple[str, str]]
) -> tuple[Counts, npt.NDArray[np.uint64], Counts]:
    """Redirects to each article; and the sorted hashes of all names with the article of each."""
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    names, targets = [hashes], [np.arange(len(hashes), dtype=np.int64)]
    for batch in _batched(aliases):
        titles = hash_ids([title for _, title in batch])
        names.append(hash_ids([alias for alias, _ in batch]))
        targets.append(order[np.searchsorted(ordered, titles)].astype(np.int64))
    redirects = np.zeros(len(hashes), dtype=np.int64)
    for target in targets[1:]:
        redirects += np.bincount(target, minlength=len(hashes))
    all_names, all_targets = np.concatenate(names), np.concatenate(targets)
    by_name = np.argsort(all_names, kind="stable")
    return redirects, all_names[by_name], all_targets[by_name]


def _batched(pairs: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    batch: list[tuple[str, str]] = []
    for pair in pairs:
        batch.append(pair)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _joined(parts: list[npt.NDArray], kind: type) -> npt.NDArray:  # type: ignore[type-arg]
    return np.concatenate(parts) if parts else np.empty(0, dtype=kind)
