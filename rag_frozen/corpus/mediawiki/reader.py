"""Passages from MediaWiki dumps: a corpus source with its report and its alias table.

Blocks of pages are judged in one or several processes and come back in the dump's order.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rag_frozen.artifacts import Draft, atomic_write_text
from rag_frozen.corpus.ids import SeenIds
from rag_frozen.corpus.mediawiki.aliases import ALIASES, AliasSpool
from rag_frozen.corpus.mediawiki.articles import (
    Article,
    Cutting,
    Judged,
    LeftOut,
    Redirect,
)
from rag_frozen.corpus.mediawiki.blocks import DumpBlocks, suitable_processes
from rag_frozen.corpus.mediawiki.options import WikiOptions
from rag_frozen.corpus.mediawiki.pages import BrokenPage
from rag_frozen.corpus.mediawiki.selection import SCORES, Selection, Selector
from rag_frozen.corpus.mediawiki.stream import DumpDamage, expand_dumps
from rag_frozen.corpus.mediawiki.tally import Tally
from rag_frozen.corpus.parallel import Executor
from rag_frozen.corpus.readers import ReadReport, SavedReading
from rag_frozen.corpus.sources import REPORT
from rag_frozen.corpus.unfinished import file_marks
from rag_frozen.errors import DataFormatError
from rag_frozen.types import Passage

__all__ = ["DumpSource"]

_GROUP = 1_024  # passages given together once a selection is made
_SPOOL = ".aliases.spool"
_log = logging.getLogger(__name__)


class DumpSource:
    """The passages of MediaWiki dumps (``corpus.sources.CorpusSource``).

    A passage is named ``<page id>-<number from 0>`` and has its article's title.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        options: WikiOptions,
        cutting: Cutting,
        processes: int | None = 1,
        damaged: Literal["stop", "keep"] = "stop",
        selection: Selection | None = None,
        executor: Executor | None = None,
    ) -> None:
        """Name a dump or a folder of dumps.

        Args:
            source: a file, or a folder whose dumps are read in the order of their numbers.
            options: which pages and what of them.
            cutting: of articles into passages.
            processes: that parse pages; their number does not change the passages. None takes as
                many as pay.
            damaged: ``stop`` raises where a dump breaks off or a page cannot be read, ``keep``
                warns and goes on.
            selection: keeps the best articles alone, and their scores beside the passages.
            executor: judges blocks of pages in place of processes of this machine; the files are
                read here.

        Raises:
            InputError: when there is no such file.
        """
        self.files = expand_dumps(source)
        self._options = options
        self._cutting = cutting
        if processes is None:
            processes = suitable_processes(self.files)
        self._blocks = DumpBlocks(self.files, processes, executor)
        self._damaged = damaged
        self._selection = selection
        self._tally = Tally()
        self._seen = SeenIds()
        self._spool: AliasSpool | None = None
        self._selector: Selector | None = None
        self._work: Path | None = None
        self._n_saved = 0
        self._saved: list[Path] = []
        self._selected = False

    @property
    def recipe(self) -> dict[str, Any]:  # Any: JSON values
        """The settings that the corpus' fingerprint covers."""
        recipe = {"mediawiki": asdict(self._options), "cutting": asdict(self._cutting)}
        if self._selection is not None:
            recipe["select"] = asdict(self._selection)
        return recipe

    @property
    def report(self) -> ReadReport:
        """What has been read so far."""
        return self._tally.report(tuple(self._blocks.begun) or tuple(map(str, self.files)))

    @property
    def share(self) -> float | None:
        """By the bytes of the files of the pages read so far."""
        whole = sum(path.stat().st_size for path in self.files)
        return min(1.0, self._blocks.file_bytes / max(whole, 1))

    @property
    def identity(self) -> dict[str, Any]:  # Any: JSON values
        """The dumps' files, and what is done where they are damaged."""
        return {"dumps": file_marks(self.files), "damaged": self._damaged}

    @property
    def gathered(self) -> int:
        """Passages that wait for the selection."""
        return 0 if self._selector is None or self._selected else self._selector.gathered

    def passages(self, work: Path) -> Iterator[Passage]:
        """Read all dumps once; ``work`` is a folder for what is gathered on the way.

        Raises:
            DataFormatError: when a file is no dump, or is damaged and ``damaged`` says stop.
            InputError: when a file cannot be read.
        """
        return chain.from_iterable(self.groups(work))

    def groups(
        self, work: Path, *, saved: Sequence[SavedReading] = ()
    ) -> Iterator[Iterable[Passage]]:
        """Read as ``passages`` does, a block of pages at a time. With a selection the groups are
        empty until all has been read.

        Raises:
            DataFormatError, InputError: as ``passages`` does.
        """
        self._work = work
        self._spool = AliasSpool(work / _SPOOL)
        if self._selection is not None:
            self._selector = Selector(work)
        if saved:
            self._restore(saved)
        for articles in self._kept_articles(self._spool):
            if self._selector is None:
                yield self._counted(passage for one in articles for passage in _cut(one))
            else:
                for article in articles:
                    self._selector.add(article)
                yield ()
        if self._selection is not None and self._selector is not None:
            chosen = self._counted(self._select(self._selection, self._selector, self._spool, work))
            while group := list(islice(chosen, _GROUP)):
                yield group
        if self._tally.problems:
            _log.warning("%s. First: %s", self.report.summary(), self._tally.problems[0])

    def save(self) -> SavedReading | None:
        """Where reading stands, with the ids, redirects, titles and waiting articles since the last
        call; None once a selection is made, which takes minutes at most to make again."""
        assert self._work is not None
        assert self._spool is not None
        if self._selected:
            return None
        seen = self._work / f".seen-{self._n_saved:05d}.npy"
        self._saved.append(seen)
        np.save(seen, self._seen.take_recent(), allow_pickle=False)
        waiting = () if self._selector is None else self._selector.save()
        self._n_saved += 1
        state = {"reached": self._blocks.reached, **self._tally.state()}
        return SavedReading(state, (seen, self._spool.take_journal(), *waiting))

    def _restore(self, saved: Sequence[SavedReading]) -> None:
        assert self._spool is not None
        for reading in saved:
            seen, journal, *waiting = reading.files
            self._seen.restore(np.load(seen, allow_pickle=False))
            self._spool.restore(journal)
            if self._selector is not None:
                self._selector.restore(waiting)
        state = saved[-1].state
        file, blocks = state["reached"]
        self._blocks.reached = (int(file), int(blocks))
        self._tally.restore(state)
        self._n_saved = len(saved)

    def finish(self, draft: Draft) -> None:
        """Write the alias table and the report into the artifact, and their numbers into its
        manifest."""
        assert self._spool is not None
        if self._selector is None:
            aliases = self._spool.write(draft / ALIASES)
        else:
            aliases = self._spool.write(draft / ALIASES, wanted=self._selector.stays)
        self.close()
        draft.inputs["aliases"] = aliases.digest
        counts = {
            **self._tally.counts(),
            "aliases": aliases.n_aliases,
            "loose_redirects": aliases.n_loose,
        }
        draft.counts.update(counts)
        report = {
            "files": [path.name for path in self.files],
            "passages": self._tally.passages,
            **counts,
            "content": draft.digests.get("content"),
            "aliases_digest": aliases.digest,
            "problems": [str(problem) for problem in self._tally.problems],
        }
        atomic_write_text(draft / REPORT, json.dumps(report, indent=2, ensure_ascii=False) + "\n")

    def close(self) -> None:
        """Remove what was gathered, when reading was given up."""
        if self._spool is not None:
            self._spool.close()
            self._spool = None
        if self._selector is not None:
            self._selector.close()
            self._selector = None
        for path in self._saved:
            path.unlink(missing_ok=True)
        self._saved = []

    def _counted(self, passages: Iterable[Passage]) -> Iterator[Passage]:
        for passage in passages:
            self._tally.passages += 1
            yield passage

    def _select(
        self, selection: Selection, selector: Selector, spool: AliasSpool, work: Path
    ) -> Iterator[Passage]:
        self._selected = True
        kept = selector.select(selection, spool.pairs(), work / SCORES)
        self._tally.dropped["selection"] = self._tally.articles - kept
        self._tally.articles, self._tally.words = kept, selector.kept_words
        return selector.passages()

    def _kept_articles(self, spool: AliasSpool) -> Iterator[Iterator[Article]]:
        """The articles of each block, to be read to the end one after another."""
        links = self._selection is not None
        for judged in self._blocks.judged(self._options, self._cutting, links=links):
            if isinstance(judged, DumpDamage):
                self._breaks_off(judged)
                self._blocks.reach(judged.file)
            else:
                yield self._kept_of(*judged, spool)

    def _kept_of(self, file: str, pages: list[Judged], spool: AliasSpool) -> Iterator[Article]:
        known = [str(one.page_id) for one in pages if not isinstance(one, BrokenPage)]
        fresh = iter(self._seen.add(known))
        for one in pages:
            self._tally.pages += 1
            if isinstance(one, BrokenPage):
                self._broken_page(file, one)
            elif not next(fresh):
                self._tally.dropped["repeated page id"] += 1
            elif isinstance(one, LeftOut):
                self._tally.dropped[one.reason] += 1
            elif isinstance(one, Redirect):
                self._tally.redirects += 1
                spool.redirect(one.title, one.target)
            else:
                self._tally.articles += 1
                self._tally.words += one.n_words
                spool.keep(one.title)
                yield one
        self._blocks.reach(file)

    def _breaks_off(self, damage: DumpDamage) -> None:
        if self._damaged == "stop":
            raise DataFormatError(
                f"{damage}. Get the dump again (its checksums are published beside it), or keep "
                "what can be read with --set corpus.damaged=keep"
            )
        detail = f"the dump breaks off after this page, at byte {damage.offset:,}: {damage.detail}"
        self._tally.note(damage.file, damage.pages, "dump that breaks off", detail)

    def _broken_page(self, file: str, page: BrokenPage) -> None:
        detail = f"at byte {page.offset:,}: {page.detail}"
        if self._damaged == "stop":
            raise DataFormatError(
                f"{file}, page {page.number:,}, cannot be read, {detail}. Get the dump again, or "
                "leave such pages out with --set corpus.damaged=keep"
            )
        self._tally.note(file, page.number, "broken page", detail)


def _cut(article: Article) -> Iterator[Passage]:
    for number, text in enumerate(article.passages):
        yield Passage(f"{article.page_id}-{number}", article.title, text)
