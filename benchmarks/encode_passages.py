"""Encode real passages: ours against sentence-transformers' own encode, in turn, in one run.

python benchmarks/encode_passages.py FILE [--passages 1000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import statistics
import time
from itertools import islice

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from rag_frozen.corpus import read_passages
from rag_frozen.models.source import resolve_model
from rag_frozen.retrieval.dense_encoders import SentenceEncoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("--model", default="pocket/minilm")
    parser.add_argument("--passages", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    passages = list(islice(read_passages(options.file), options.passages))
    folder = resolve_model(options.model)
    ours = SentenceEncoder(folder)
    theirs = SentenceTransformer(str(folder.path), device="cpu")
    texts = [f"{p.title}. {p.text}" for p in passages]
    ratios, speeds = [], []
    for _ in range(options.rounds):
        began = time.perf_counter()
        vectors = ours.encode_passages(passages)
        middle = time.perf_counter()
        peer = theirs.encode(texts, show_progress_bar=False)
        ended = time.perf_counter()
        ratios.append((ended - middle) / (middle - began))
        speeds.append(len(passages) / (middle - began))
    cosine = (vectors * peer).sum(axis=1) / np.linalg.norm(vectors, axis=1)
    queries = slice(0, 100)
    exact = np.argsort(-(peer[queries] @ peer.T), axis=1)[:, :20]
    found = np.argsort(-(vectors[queries] @ vectors.T), axis=1)[:, :20]
    same = np.mean([len(set(a) & set(b)) / 20 for a, b in zip(exact, found, strict=True)])
    print(
        f"{statistics.median(speeds):.0f} passages/s, {statistics.median(ratios):.2f} times "
        f"sentence-transformers (rounds {', '.join(f'{r:.2f}' for r in ratios)}); lowest cosine "
        f"{cosine.min():.5f}; overlap of the top 20 {100 * same:.2f} %; torch {torch.__version__}"
    )


if __name__ == "__main__":
    main()
