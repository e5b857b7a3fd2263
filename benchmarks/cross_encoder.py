"""Score real pairs: ours against sentence-transformers' CrossEncoder.predict, in turn, in one run.

python benchmarks/cross_encoder.py PASSAGES QUESTIONS [--questions 50] [--depth 20] [--rounds 3]

PASSAGES is a file of passages, QUESTIONS one of JSON lines with "question"; the pairs are each
question's first BM25 hits. The model is the pocket reranker, given to both in the same weights.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import CrossEncoder
from transformers import AutoTokenizer

from rag_frozen.corpus import read_passages
from rag_frozen.models.device import DtypeName
from rag_frozen.models.source import resolve_model
from rag_frozen.rerank.cross_encoder import CrossEncoderReranker, pair_of
from rag_frozen.rerank.pocket import load_pocket_classifier
from rag_frozen.retrieval.bm25_tantivy import TantivyRetriever, build_tantivy
from rag_frozen.training.files import read_json_lines
from rag_frozen.types import Passage, Question

MAX_LENGTH = 192


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("passages", type=Path)
    parser.add_argument("asked", metavar="questions", type=Path)
    parser.add_argument("--questions", type=int, default=50)
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()

    rows = islice(read_json_lines(args.asked), args.questions)
    questions = [Question(str(n), str(row["question"])) for n, row in enumerate(rows)]
    candidates = _candidates(args.passages, questions, args.depth)
    pairs = [pair_of(q, p) for q, ps in zip(questions, candidates, strict=True) for p in ps]
    peer = _peer()

    def predict() -> NDArray[np.float32]:
        scores = peer.predict(pairs, activation_fn=torch.nn.Identity())
        return np.asarray(scores, dtype=np.float32)

    print(f"{len(pairs)} pairs of {len(questions)} questions; torch {torch.__version__}")
    for dtype in ("float32", "auto"):
        _compare(dtype, questions, candidates, predict, args.rounds)


def _compare(
    dtype: DtypeName,
    questions: Sequence[Question],
    candidates: Sequence[Sequence[Passage]],
    predict: Callable[[], NDArray[np.float32]],
    rounds: int,
) -> None:
    model = resolve_model("pocket/reranker")
    reranker = CrossEncoderReranker(model, max_length=MAX_LENGTH, dtype=dtype)
    reranker.rerank(questions[:2], candidates[:2])  # warm
    speeds, ratios = [], []
    for _ in range(rounds):
        started = time.perf_counter()
        rankings = reranker.rerank(questions, candidates)
        ours = time.perf_counter() - started
        started = time.perf_counter()
        theirs = predict()
        peer_seconds = time.perf_counter() - started
        speeds.append(len(theirs) / ours)
        ratios.append(peer_seconds / ours)
    same_first, same_order, differences, start = 0, 0, [], 0
    for passages, ranking in zip(candidates, rankings, strict=True):
        scores = theirs[start : start + len(passages)]
        start += len(passages)
        by_id = {hit.passage_id: hit.score for hit in ranking}
        wanted = sorted(zip(-scores, (p.id for p in passages), strict=True))
        order = [passage_id for _, passage_id in wanted]
        found = [hit.passage_id for hit in ranking]
        same_first += order[:1] == found[:1]
        same_order += order == found
        differences += [abs(by_id[p.id] - s) for p, s in zip(passages, scores, strict=True)]
    print(
        f"{dtype}: {statistics.median(speeds):.0f} pairs/s, {statistics.median(ratios):.2f} times "
        f"CrossEncoder.predict (rounds {', '.join(f'{r:.2f}' for r in ratios)}); same first "
        f"passage {same_first}, same whole order {same_order} of {len(rankings)}; largest "
        f"difference of a score {max(differences):.2g}",
        flush=True,
    )


def _candidates(file: Path, questions: Sequence[Question], depth: int) -> list[list[Passage]]:
    passages = {passage.id: passage for passage in read_passages(file)}
    with tempfile.TemporaryDirectory() as folder:
        build_tantivy(Path(folder) / "index", passages.values())
        rankings = TantivyRetriever(Path(folder) / "index").retrieve(questions, k=depth)
        return [[passages[hit.passage_id] for hit in ranking] for ranking in rankings]


def _peer() -> CrossEncoder:
    """The same weights in the form that sentence-transformers loads."""
    minilm = resolve_model("pocket/minilm").path
    with tempfile.TemporaryDirectory() as folder:
        load_pocket_classifier(resolve_model("pocket/reranker").path, minilm).save_pretrained(
            folder
        )
        AutoTokenizer.from_pretrained(str(minilm)).save_pretrained(folder)
        return CrossEncoder(folder, max_length=MAX_LENGTH)


if __name__ == "__main__":
    main()
