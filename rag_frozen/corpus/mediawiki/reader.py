"""Passages from MediaWiki dumps: a corpus source with its report and its alias table.

Blocks of pages are judged in one or several processes and come back in the dump's order.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rag_frozen.artifacts import Draft, atomic_write_text
from rag_frozen.corpus.ids import SeenIds
from rag_frozen.corpus.mediawiki.aliases import ALIASES, AliasSpool
from rag_frozen.corpus.mediawiki.articles import (
    Article,
    Cutting,
    Judged,
    LeftOut,
    Redirect,
    judge_block,
)
from rag_frozen.corpus.mediawiki.options import WikiOptions
from rag_frozen.corpus.mediawiki.pages import BrokenPage
from rag_frozen.corpus.mediawiki.selection import SCORES, Selection, Selector
from rag_frozen.corpus.mediawiki.stream import DumpDamage, PageBlock, expand_dumps, page_blocks
from rag_frozen.corpus.parallel import Executor, ordered_map, usable_cores
from rag_frozen.corpus.readers import ReadProblem, ReadReport
from rag_frozen.corpus.sources import REPORT
from rag_frozen.errors import DataFormatError
from rag_frozen.types import Passage

__all__ = ["DumpSource", "suitable_processes"]

_SHOWN = 20  # problems that the report tells of
_WORTH = {"plain": 2**23, "packed": 2**21}  # bytes of a dump for which a process pays its start
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
        self._processes = suitable_processes(self.files) if processes is None else processes
        self._damaged = damaged
        self._selection = selection
        self._executor = executor
        self._pages = 0
        self._file_bytes = 0
        self._articles = 0
        self._words = 0
        self._passages = 0
        self._redirects = 0
        self._dropped: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._problems: list[ReadProblem] = []
        self._begun: list[str] = []
        self._seen = SeenIds()
        self._spool: AliasSpool | None = None
        self._selector: Selector | None = None

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
        return ReadReport(
            kept=self._passages,
            malformed=self._reasons.total(),
            reasons=tuple(self._reasons.most_common()),
            problems=tuple(self._problems),
            files=tuple(self._begun) or tuple(map(str, self.files)),
            unit="pages",
        )

    @property
    def share(self) -> float | None:
        """By the bytes of the files of the pages read so far."""
        whole = sum(path.stat().st_size for path in self.files)
        return min(1.0, self._file_bytes / max(whole, 1))

    def passages(self, work: Path) -> Iterator[Passage]:
        """Read all dumps once; ``work`` is a folder for what is gathered on the way.

        Raises:
            DataFormatError: when a file is no dump, or is damaged and ``damaged`` says stop.
            InputError: when a file cannot be read.
        """
        self._spool = AliasSpool(work / ".aliases.spool")
        articles = self._kept_articles(self._spool)
        passages: Iterator[Passage]
        if self._selection is None:
            passages = (passage for article in articles for passage in _cut(article))
        else:
            passages = self._selected(articles, self._selection, self._spool, work)
        for passage in passages:
            self._passages += 1
            yield passage
        if self._reasons:
            _log.warning("%s. First: %s", self.report.summary(), self._problems[0])

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
            "pages": self._pages,
            "articles": self._articles,
            "words": self._words,
            "redirects": self._redirects,
            "aliases": aliases.n_aliases,
            "loose_redirects": aliases.n_loose,
            **_counts("dropped", self._dropped),
            **_counts("damaged", self._reasons),
        }
        draft.counts.update(counts)
        report = {
            "files": [path.name for path in self.files],
            "passages": self._passages,
            **counts,
            "content": draft.digests.get("content"),
            "aliases_digest": aliases.digest,
            "problems": [str(problem) for problem in self._problems],
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

    def _selected(
        self, articles: Iterator[Article], selection: Selection, spool: AliasSpool, work: Path
    ) -> Iterator[Passage]:
        self._selector = Selector(work)
        for article in articles:
            self._selector.add(article)
        kept = self._selector.select(selection, spool.pairs(), work / SCORES)
        self._dropped["selection"] = self._articles - kept
        self._articles, self._words = kept, self._selector.kept_words
        return self._selector.passages()

    def _kept_articles(self, spool: AliasSpool) -> Iterator[Article]:
        judge = partial(
            _judge,
            options=self._options,
            cutting=self._cutting,
            links=self._selection is not None,
        )
        if self._executor is None:
            blocks = ordered_map(judge, self._blocks(), processes=self._processes)
        else:
            blocks = self._executor.map(judge, self._blocks())
        for file, judged in blocks:
            fresh = iter(
                self._seen.add(
                    [str(one.page_id) for one in judged if not isinstance(one, BrokenPage)]
                )
            )
            for one in judged:
                self._pages += 1
                if isinstance(one, BrokenPage):
                    self._broken_page(file, one)
                elif not next(fresh):
                    self._dropped["repeated page id"] += 1
                elif isinstance(one, LeftOut):
                    self._dropped[one.reason] += 1
                elif isinstance(one, Redirect):
                    self._redirects += 1
                    spool.redirect(one.title, one.target)
                else:
                    self._articles += 1
                    self._words += one.n_words
                    spool.keep(one.title)
                    yield one

    def _blocks(self) -> Iterator[PageBlock]:
        done = 0  # bytes of the files before this one
        for path in self.files:
            self._begun.append(str(path))
            for block in page_blocks(path):
                self._file_bytes = done + block.file_offset
                if isinstance(block, DumpDamage):
                    self._breaks_off(block)
                else:
                    yield block
            done += path.stat().st_size

    def _breaks_off(self, damage: DumpDamage) -> None:
        if self._damaged == "stop":
            raise DataFormatError(
                f"{damage}. Get the dump again (its checksums are published beside it), or keep "
                "what can be read with --set corpus.damaged=keep"
            )
        detail = f"the dump breaks off after this page, at byte {damage.offset:,}: {damage.detail}"
        self._note(damage.file, damage.pages, "dump that breaks off", detail)

    def _broken_page(self, file: str, page: BrokenPage) -> None:
        detail = f"at byte {page.offset:,}: {page.detail}"
        if self._damaged == "stop":
            raise DataFormatError(
                f"{file}, page {page.number:,}, cannot be read, {detail}. Get the dump again, or "
                "leave such pages out with --set corpus.damaged=keep"
            )
        self._note(file, page.number, "broken page", detail)

    def _note(self, file: str, page: int, reason: str, detail: str) -> None:
        problem = ReadProblem(file, page, reason, detail, unit="page")
        _log.warning("%s", problem)
        self._reasons[reason] += 1
        if len(self._problems) < _SHOWN:
            self._problems.append(problem)


def suitable_processes(files: Sequence[Path]) -> int:
    """Return how many processes pay for dumps: all usable cores, fewer for small files, because a
    process takes about a second to start."""
    worth = sum(
        path.stat().st_size / _WORTH["plain" if path.suffix == ".xml" else "packed"]
        for path in files
    )
    return max(1, min(usable_cores(), round(worth)))


def _judge(
    block: PageBlock, options: WikiOptions, cutting: Cutting, *, links: bool
) -> tuple[str, list[Judged]]:
    """What a worker does; links go back to the first process only where they are asked for."""
    judged = judge_block(block, options, cutting)
    if not links:
        judged = [replace(one, links=()) if isinstance(one, Article) else one for one in judged]
    return block.file, judged


def _cut(article: Article) -> Iterator[Passage]:
    for number, text in enumerate(article.passages):
        yield Passage(f"{article.page_id}-{number}", article.title, text)


def _counts(what: str, reasons: Counter[str]) -> dict[str, int]:
    return {f"{what}_{reason.replace(' ', '_')}": n for reason, n in sorted(reasons.items())}
