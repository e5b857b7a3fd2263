"""Open and read a store of synthetic passages: time, and resident memory as the system counts it.

python benchmarks/corpus_store.py [--passages 500000]

Two sizes are measured, a tenth and the whole, each opened in a process of its own: what does not
grow with the corpus is alike in both.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rag_frozen.corpus.store import ArrowPassageStore
from rag_frozen.corpus.store_writing import write_store
from rag_frozen.types import Passage

LOOKUPS = 20_000
TOP_K = 100  # ids a call, as a retriever's ranking


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--passages", type=int, default=500_000)
    parser.add_argument("--read", help="measure a store that is there (used by the script itself)")
    arguments = parser.parse_args()
    if arguments.read:
        read(arguments.read)
        return
    for size in (arguments.passages // 10, arguments.passages):
        with tempfile.TemporaryDirectory() as folder:
            build(Path(folder), size)
            subprocess.run([sys.executable, __file__, "--read", folder], check=True)


def build(folder: Path, size: int) -> None:
    """Write a store of ``size`` passages and print seconds, bytes and the growth in memory."""
    before = resident("VmHWM")
    began = time.perf_counter()
    write_store(folder, passages(size))
    seconds = time.perf_counter() - began
    on_disk = sum(file.stat().st_size for file in folder.iterdir()) / 2**20
    print(
        f"{size:,} passages: built in {seconds:.1f} s, {on_disk:.0f} MiB on disk, peak memory "
        f"{resident('VmHWM') - before:.0f} MiB over the {before:.0f} MiB before"
    )


def read(folder: str) -> None:
    """Open a store, look ids up, go over all of it; print time and resident memory of each."""
    start = resident("VmRSS")
    began = time.perf_counter()
    store = ArrowPassageStore(folder)
    opened = 1e3 * (time.perf_counter() - began)
    after_opening = resident("VmRSS") - start
    rng = random.Random(1)
    size = len(store)
    asked = [[str(rng.randrange(size)) for _ in range(TOP_K)] for _ in range(LOOKUPS // TOP_K)]
    began = time.perf_counter()
    for ids in asked:
        store.get(ids)
    per_lookup = 1e6 * (time.perf_counter() - began) / LOOKUPS
    after_lookups = resident("VmRSS") - start
    began = time.perf_counter()
    count = sum(len(batch) for batch in store.iter_passages(1_000))
    per_second = count / (time.perf_counter() - began)
    print(
        f"  opened in {opened:.1f} ms (+{after_opening:.1f} MiB resident); {LOOKUPS:,} lookups by "
        f"{TOP_K}: {per_lookup:.0f} µs each (+{after_lookups:.1f} MiB); all in order: "
        f"{per_second:,.0f}/s (+{resident('VmRSS') - start:.1f} MiB); "
        f"peak +{resident('VmHWM') - start:.1f} MiB"
    )


def resident(field: str) -> float:
    """MiB of this process in memory, mapped files included: ``VmRSS`` now, ``VmHWM`` at most."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def passages(size: int) -> Iterator[Passage]:
    """Synthetic passages of 100 words."""
    rng = random.Random(0)
    words = [f"word{number}" for number in range(5_000)]
    for number in range(size):
        yield Passage(str(number), f"Title {number // 5}", " ".join(rng.choices(words, k=100)))


if __name__ == "__main__":
    main()
