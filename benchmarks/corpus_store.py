"""Open and read a store of synthetic passages: milliseconds to open, resident memory.

python benchmarks/corpus_store.py [--passages 500000]
"""

from __future__ import annotations

import argparse
import gc
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rag_frozen.corpus.store import ArrowPassageStore, write_store
from rag_frozen.types import Passage


def resident_mib() -> float:
    """Resident memory of this process that no file backs, and all of it."""
    fields = dict(
        line.split(":", 1)
        for line in Path("/proc/self/status").read_text().splitlines()
        if ":" in line
    )
    return int(fields["RssAnon"].split()[0]) / 1024


def passages(n: int) -> Iterator[Passage]:
    rng = random.Random(0)
    words = [f"word{i}" for i in range(5_000)]
    for i in range(n):
        yield Passage(str(i), f"Title {i // 5}", " ".join(rng.choices(words, k=100)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=500_000)
    n = parser.parse_args().passages
    for size in (n // 10, n):
        with tempfile.TemporaryDirectory() as name:
            began = time.perf_counter()
            write_store(Path(name), passages(size))
            built = time.perf_counter() - began
            gc.collect()
            before = resident_mib()
            began = time.perf_counter()
            store = ArrowPassageStore(name)
            opened = 1e3 * (time.perf_counter() - began)
            rng = random.Random(1)
            ids = [str(rng.randrange(size)) for _ in range(1_000)]
            began = time.perf_counter()
            store.get(ids)
            looked_up = 1e6 * (time.perf_counter() - began) / len(ids)
            grown = resident_mib() - before
            print(
                f"{size:,} passages: built in {built:.1f} s, opened in {opened:.1f} ms, "
                f"{looked_up:.0f} µs a lookup, {grown:.1f} MiB more anonymous memory"
            )


if __name__ == "__main__":
    main()
