"""Read MediaWiki dumps into a corpus beside wikiextractor, in one run: pages, passages a second.

pip install wikiextractor        # AGPL, run here as a program of its own
python benchmarks/dump_reading.py DUMP... [--processes 1 2] [--copies 1] [--without-peer]

Both sides end in the same kind of corpus: passages of 100 words, stored and hashed. Ours reads the
dump into it; wikiextractor writes JSON files (``--json``), which are then cut and stored by this
project's code. Runs take turns, and the best of ``--runs`` counts. ``--copies`` writes a dump that
repeats the pages under other ids and titles (synthetic, labelled so), so that starting processes
weighs less. Peak memory is that of the largest process, of ours alone.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rag_frozen.corpus import build_corpus, build_corpus_from
from rag_frozen.corpus.mediawiki.articles import Cutting
from rag_frozen.corpus.mediawiki.options import WikiOptions
from rag_frozen.corpus.mediawiki.reader import DumpSource
from rag_frozen.corpus.mediawiki.stream import DumpDamage, page_blocks

MIB = 2**20
TITLE = re.compile(rb"<title>(.*?)</title>", re.DOTALL)
PAGE_ID = re.compile(rb"<id>(\d+)</id>")


@dataclass(frozen=True)
class Run:
    """One reading of a dump: seconds on the clock and of all cores, and how many pages, articles
    and passages."""

    seconds: float
    cpu_seconds: float
    pages: int
    articles: int
    passages: int

    def __str__(self) -> str:
        return (
            f"{self.seconds:7.2f} s ({self.cpu_seconds:.2f} CPU s)  "
            f"{self.pages / self.seconds:8,.0f} pages/s  "
            f"{self.passages / self.seconds:8,.0f} passages/s  "
            f"({self.articles:,} articles, {self.passages:,} passages)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dumps", nargs="+", type=Path)
    parser.add_argument("--processes", nargs="+", type=int, default=[1, os.cpu_count() or 1])
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--without-peer", action="store_true")
    arguments = parser.parse_args()
    if not arguments.without_peer and importlib.util.find_spec("wikiextractor") is None:
        sys.exit("wikiextractor is not installed: pip install wikiextractor, or --without-peer")
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for given in arguments.dumps:
        with tempfile.TemporaryDirectory() as name:
            work = Path(name)
            dump, pages = repeat(given, work, copies=arguments.copies)
            label = f", pages repeated {arguments.copies} times" if arguments.copies > 1 else ""
            print(f"\n{given.name}{label}: {pages:,} pages, {dump.stat().st_size / MIB:.1f} MiB")
            for processes in arguments.processes:
                compare(dump, pages, processes, arguments.runs, peer=not arguments.without_peer)


def compare(dump: Path, pages: int, processes: int, runs: int, *, peer: bool) -> None:
    """Print the best of some runs of each side, taken in turns."""
    ours_all, theirs_all = [], []
    for _ in range(runs):
        ours_all.append(ours(dump, pages, processes))
        if peer:
            theirs_all.append(theirs(dump, pages, processes))
    best = min(ours_all, key=lambda run: run.seconds)
    print(f"  {processes} processes  rag-frozen     {best}")
    if peer:
        other = min(theirs_all, key=lambda run: run.seconds)
        print(f"  {processes} processes  wikiextractor  {other}")
        print(
            f"    theirs / ours: {other.seconds / best.seconds:.2f} in seconds, "
            f"{other.cpu_seconds / best.cpu_seconds:.2f} in CPU seconds"
        )
    peak = max(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    if not peer:
        print(f"    peak memory of one process: {peak / 1024:.0f} MiB")


def ours(dump: Path, pages: int, processes: int) -> Run:
    """Read, cut and store with this project. Lists stay, as wikiextractor keeps them."""
    with tempfile.TemporaryDirectory() as root:
        began, used = time.perf_counter(), cpu_seconds()
        source = DumpSource(
            dump,
            options=WikiOptions(lists=True, disambiguation=True, skip_titles=(), drop_sections=()),
            cutting=Cutting(),
            processes=processes,
        )
        built = build_corpus_from(source, root, name="ours")
        seconds, used = time.perf_counter() - began, cpu_seconds() - used
    counts = built.manifest.counts
    return Run(seconds, used, pages, counts["articles"], counts["passages"])


def theirs(dump: Path, pages: int, processes: int) -> Run:
    """Extract with wikiextractor, then cut and store its JSON."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began, used = time.perf_counter(), cpu_seconds()
        command = [sys.executable, "-m", "wikiextractor.WikiExtractor", str(dump), "--json",
                   "--quiet", "--bytes", "100M", "--processes", str(processes),
                   "--output", str(folder / "out")]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"wikiextractor failed:\n{done.stderr[-2_000:]}")
        files = sorted((folder / "out").rglob("wiki_*"))
        built = build_corpus(files, folder, name="theirs", format="jsonl", chunk_words=100)
        seconds, used = time.perf_counter() - began, cpu_seconds() - used
    return Run(seconds, used, pages, built.report.kept, built.manifest.counts["passages"])


def cpu_seconds() -> float:
    """Seconds of processor time of this process and of those that it started and that ended."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in spent)


def repeat(dump: Path, work: Path, *, copies: int) -> tuple[Path, int]:
    """Count a dump's pages; with copies, write one that holds them several times."""
    n_pages, largest = 0, 0
    for block in page_blocks(dump):
        if isinstance(block, DumpDamage):
            sys.exit(str(block))
        n_pages += len(block.pages)
        ids = (PAGE_ID.search(page.xml) for page in block.pages)
        largest = max([largest, *(int(found[1]) for found in ids if found)])
    if copies == 1:
        return dump, n_pages
    path = work / "repeated.xml"
    with path.open("wb") as handle:
        for copy in range(copies):
            for block in page_blocks(dump):
                if isinstance(block, DumpDamage):
                    continue
                if handle.tell() == 0:
                    handle.write(block.header)
                handle.writelines(renamed(page.xml, copy, largest) for page in block.pages)
        handle.write(b"</mediawiki>\n")
    return path, n_pages * copies


def renamed(xml: bytes, copy: int, largest: int) -> bytes:
    """A page under another id and title, on lines of its own as in a dump."""
    if copy:
        xml = TITLE.sub(rb"<title>\1 (copy %d)</title>" % copy, xml, count=1)
        xml = PAGE_ID.sub(lambda m: b"<id>%d</id>" % (int(m[1]) + copy * largest), xml, count=1)
    return b"  " + xml + b"\n"


if __name__ == "__main__":
    main()
