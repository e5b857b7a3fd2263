"""Blocks of pages of several dumps, judged in one or several processes, in the dumps' order.

Knows how far reading has come, and nothing about what becomes of the pages.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from rag_frozen.corpus.mediawiki.articles import Article, Cutting, Judged, judge_block
from rag_frozen.corpus.mediawiki.options import WikiOptions
from rag_frozen.corpus.mediawiki.stream import DumpDamage, PageBlock, page_blocks
from rag_frozen.corpus.parallel import Executor, ordered_map, usable_cores

__all__ = ["DumpBlocks", "suitable_processes"]

_WORTH = {"plain": 2**23, "packed": 2**21}  # bytes of a dump for which a process pays its start


class DumpBlocks:
    """Reads each dump once. ``begun`` are the files begun, ``file_bytes`` the bytes of them that
    were read; ``reached`` are a file's number and the blocks of it that were dealt with, from
    which another instance can go on."""

    def __init__(self, files: Sequence[Path], processes: int, executor: Executor | None) -> None:
        """Name the dumps in their order.

        Args:
            files: the dumps.
            processes: that parse pages.
            executor: judges blocks in place of processes of this machine.
        """
        self.files = files
        self.processes = processes
        self.begun: list[str] = []
        self.file_bytes = 0
        self.reached = (0, 0)
        self._executor = executor

    def judged(
        self, options: WikiOptions, cutting: Cutting, *, links: bool
    ) -> Iterator[tuple[str, list[Judged]] | DumpDamage]:
        """Yield each block's file and pages, or where a file breaks off; ``links`` keeps those of
        articles. Whoever takes a block calls :meth:`reach` when it is dealt with."""
        judge = partial(_judge, options=options, cutting=cutting, links=links)
        if self._executor is None:
            return ordered_map(judge, self._blocks(), processes=self.processes)
        return self._executor.map(judge, self._blocks())

    def reach(self, file: str) -> None:
        """Note that a block of a file has been read to its end."""
        number = list(map(str, self.files)).index(file)
        same = number == self.reached[0]
        self.reached = (number, self.reached[1] + 1 if same else 1)

    def _blocks(self) -> Iterator[PageBlock | DumpDamage]:
        """The blocks that were not read yet; of those before them only the bytes are."""
        first, passed_over = self.reached
        done = sum(path.stat().st_size for path in self.files[:first])
        self.begun += map(str, self.files[:first])
        for path in self.files[first:]:
            self.begun.append(str(path))
            for number, block in enumerate(page_blocks(path)):
                self.file_bytes = done + block.file_offset
                if number >= passed_over:
                    yield block
            passed_over = 0
            done += path.stat().st_size


def suitable_processes(files: Sequence[Path]) -> int:
    """Return how many processes pay for dumps: all usable cores, fewer for small files, because a
    process takes about a second to start."""
    worth = sum(
        path.stat().st_size / _WORTH["plain" if path.suffix == ".xml" else "packed"]
        for path in files
    )
    return max(1, min(usable_cores(), round(worth)))


def _judge(
    block: PageBlock | DumpDamage, options: WikiOptions, cutting: Cutting, *, links: bool
) -> tuple[str, list[Judged]] | DumpDamage:
    """What a worker does; links go back to the first process only where they are asked for. Damage
    comes back in its place among the blocks."""
    if isinstance(block, DumpDamage):
        return block
    judged = judge_block(block, options, cutting)
    if not links:
        judged = [replace(one, links=()) if isinstance(one, Article) else one for one in judged]
    return block.file, judged
