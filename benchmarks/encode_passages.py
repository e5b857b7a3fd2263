"""Encode real passages: ours against sentence-transformers' own encode, in turn, in one run.

python benchmarks/encode_passages.py FILE [--passages 1000] [--rounds 3] [--questions QUESTIONS]

The peer is ``SentenceTransformer(model).encode`` with its defaults: batches of 32 sorted by the
length of the texts, fp32. ``--threads`` holds for both. Beside speed stand the lowest cosine of the
two vectors of a passage and how many of the 20 nearest passages of the first hundred are the same;
with ``--questions`` (each with its gold passage, of FILE) the share of questions whose gold passage
is among the first 1, 5, 20 by either side's vectors.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from rag_frozen.corpus import read_passages
from rag_frozen.evaluation.datasets import read_examples
from rag_frozen.models.source import resolve_model
from rag_frozen.retrieval.dense_encoders import SentenceEncoder, Vectors
from rag_frozen.types import Passage


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file")
    parser.add_argument("--model", default="pocket/minilm")
    parser.add_argument("--passages", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--questions", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    passages = list(islice(read_passages(options.file), options.passages))
    folder = resolve_model(options.model)
    ours = SentenceEncoder(folder)
    theirs = SentenceTransformer(str(folder.path), device="cpu")
    texts = [f"{p.title}. {p.text}" for p in passages]
    ours.encode_passages(passages[:32])
    theirs.encode(texts[:32], show_progress_bar=False)
    ratios, speeds, peers, of_cpu = [], [], [], []
    for _ in range(options.rounds):
        began, worked = time.perf_counter(), time.process_time()
        vectors = ours.encode_passages(passages)
        middle, worked_since = time.perf_counter(), time.process_time()
        peer = theirs.encode(texts, show_progress_bar=False)
        ended, worked_in_all = time.perf_counter(), time.process_time()
        ratios.append((ended - middle) / (middle - began))
        of_cpu.append((worked_in_all - worked_since) / (worked_since - worked))
        speeds.append(len(passages) / (middle - began))
        peers.append(len(passages) / (ended - middle))
    cosine = (vectors * peer).sum(axis=1) / np.linalg.norm(vectors, axis=1)
    print(
        f"{len(passages):,} passages, {options.threads} thread(s), torch {torch.__version__}\n"
        f"ours {statistics.median(speeds):.1f} passages/s, sentence-transformers "
        f"{statistics.median(peers):.1f}: {statistics.median(ratios):.2f} times (rounds "
        f"{', '.join(f'{r:.2f}' for r in ratios)}; by CPU time {statistics.median(of_cpu):.2f})\n"
        f"lowest cosine {cosine.min():.5f}; overlap of the top 20 "
        f"{100 * overlap(vectors, peer):.2f} %"
    )
    if options.questions is not None:
        examples = read_examples(options.questions).examples
        asked = [(one.question.text, one.gold_passage.text) for one in examples if one.gold_passage]
        for name, made, encoded in (
            ("ours", vectors, ours.encode_questions([text for text, _ in asked])),
            ("theirs", peer, theirs.encode([text for text, _ in asked], show_progress_bar=False)),
        ):
            print(f"  {name}: {gold_recall(passages, made, encoded, [gold for _, gold in asked])}")


def overlap(vectors: Vectors, peer: Vectors) -> float:
    """Share of the 20 nearest passages of the first hundred that both have."""
    queries = slice(0, 100)
    exact = np.argsort(-(peer[queries] @ peer.T), axis=1)[:, :20]
    found = np.argsort(-(vectors[queries] @ vectors.T), axis=1)[:, :20]
    return float(np.mean([len(set(a) & set(b)) / 20 for a, b in zip(exact, found, strict=True)]))


def gold_recall(
    passages: Sequence[Passage], vectors: Vectors, questions: Vectors, gold: Sequence[str]
) -> str:
    """How often the gold passage, known by its text, is among the first."""
    rows = {" ".join(passage.text.split()): row for row, passage in enumerate(passages)}
    known = [(place, rows.get(" ".join(text.split()))) for place, text in enumerate(gold)]
    kept = [(place, row) for place, row in known if row is not None]
    scores = questions @ vectors.T
    ranks = [1 + int((scores[place] > scores[place, row]).sum()) for place, row in kept]
    shares = [f"@{k} {100 * np.mean([rank <= k for rank in ranks]):.2f}" for k in (1, 5, 20)]
    return f"gold passage of {len(ranks):,} questions {'  '.join(shares)}"


if __name__ == "__main__":
    main()
