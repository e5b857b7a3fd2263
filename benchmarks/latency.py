"""Seconds of ``ask``: warm, and from process start to first answer; resident memory.

python benchmarks/latency.py [--root DIR] [--questions 100] [--starts 3]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from rag_frozen.build import load_pipeline
from rag_frozen.evaluation.datasets import read_pocket_examples

CODE = "import rag_frozen; rag_frozen.ask('who painted the mona lisa')"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--starts", type=int, default=3)
    options = parser.parse_args()
    pipeline = load_pipeline("pocket", root=options.root)
    examples = read_pocket_examples().examples[:: 1 + 1_266 // options.questions]
    pipeline.ask(examples[0].question.text)
    spent = []
    for example in examples:
        began = time.perf_counter()
        pipeline.ask(example.question.text)
        spent.append(time.perf_counter() - began)
    cuts = statistics.quantiles(spent, n=100)
    memory = Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]
    print(f"ask, warm, {len(spent)} questions: p50 {cuts[49]:.3f} s, p95 {cuts[94]:.3f} s")
    print(f"resident memory {int(memory) / 1024:.0f} MiB")
    environment = {**os.environ, "RAG_FROZEN_HOME": str(options.root)}
    starts = []
    for _ in range(options.starts):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", CODE], check=True, env=environment)
        starts.append(time.perf_counter() - began)
    print(f"process start to first answer: {', '.join(f'{s:.1f}' for s in starts)} s")


if __name__ == "__main__":
    main()
