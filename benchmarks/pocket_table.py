"""Exact match and F1 of the pocket pipeline by retriever, with and without reranker.

python benchmarks/pocket_table.py [--root DIR]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rag_frozen.build import load_pipeline
from rag_frozen.evaluation.datasets import read_pocket_examples
from rag_frozen.evaluation.runner import evaluate
from rag_frozen.evaluation.statistics import mcnemar_p

RETRIEVERS = {
    "BM25": ["retrieval={kind: bm25, k: 100}"],
    "dense": ["retrieval={kind: dense, k: 100}"],
    "fused": [],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path)
    root = parser.parse_args().root
    data = read_pocket_examples()
    print("| retriever | reranker | exact match | F1 | answer-recall @1 / @5 / @20 | p (McNemar) |")
    print("|---|---|---|---|---|---|")
    for name, overrides in RETRIEVERS.items():
        plain: list[bool] = []
        for reranked in (False, True):
            without = [] if reranked else ["reranker={kind: none}"]
            pipeline = load_pipeline("pocket", root=root, overrides=[*overrides, *without])
            result = evaluate(pipeline, data)
            low, high = result.exact_match_interval
            matched = [row.exact_match for row in result.scored if row.answers]
            p = f"{mcnemar_p(matched, plain):.2g}" if reranked else ""
            plain = plain or matched
            recall = " / ".join(f"{result.recall['final'][k]:.1f}" for k in (1, 5, 20))
            print(
                f"| {name} | {'yes' if reranked else 'no'} | {result.exact_match:.1f} "
                f"[{low:.1f}, {high:.1f}] | {result.f1:.1f} | {recall} | {p} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
