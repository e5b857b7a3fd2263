"""Answer-recall of BM25, dense retrieval and their fusion over indexes that are built.

python benchmarks/answer_recall.py QUESTIONS.jsonl --index files-minilm --set name=nq --root DIR
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from rag_frozen.evaluation.datasets import read_examples
from rag_frozen.evaluation.metrics import has_answer
from rag_frozen.evaluation.runner import DEPTHS
from rag_frozen.evaluation.statistics import bootstrap_interval
from rag_frozen.indexing.encoders import make_encoder
from rag_frozen.indexing.opening import open_bm25, open_dense, open_store
from rag_frozen.indexing.parts import BuiltIndex, index_parts
from rag_frozen.protocols import PassageStore
from rag_frozen.recipes.index import IndexRecipe
from rag_frozen.recipes.loading import load_recipe
from rag_frozen.retrieval.fusion import reciprocal_rank_fusion
from rag_frozen.types import Question, Ranking


def first_answering(store: PassageStore, ranking: Ranking, answers: tuple[str, ...]) -> int | None:
    passages = store.get([hit.passage_id for hit in ranking])
    return next((n for n, p in enumerate(passages, 1) if has_answer(p.text, answers)), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("questions", type=Path)
    parser.add_argument("--index", default="files-minilm")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--root", type=Path)
    parser.add_argument("--only", choices=["bm25"], default=None)
    options = parser.parse_args()
    recipe = load_recipe(options.index, IndexRecipe, folder="indexes", overrides=options.overrides)
    if options.only == "bm25":
        recipe = recipe.model_copy(update={"dense": None})
    built = index_parts(recipe, root=options.root)
    store, examples = open_store(built), read_examples(options.questions).examples
    questions = [example.question for example in examples]
    runs = search(built, recipe, questions)
    if len(runs) == 2:
        pairs = zip(runs["bm25"], runs["dense"], strict=True)
        runs["fused (rrf)"] = [reciprocal_rank_fusion(pair)[:100] for pair in pairs]
    print(f"{len(questions)} questions over {len(store):,} passages; answer-recall, 95 % interval")
    for name, rankings in runs.items():
        ranks = [
            first_answering(store, ranking, example.answers)
            for ranking, example in zip(rankings, examples, strict=True)
        ]
        cells = []
        for k in DEPTHS:
            found = [float(rank is not None and rank <= k) for rank in ranks]
            low, high = bootstrap_interval(found)
            share = 100 * sum(found) / len(found)
            cells.append(f"@{k} {share:.1f} [{100 * low:.1f}, {100 * high:.1f}]")
        print(f"  {name}: {'  '.join(cells)}")


def search(
    built: BuiltIndex, recipe: IndexRecipe, questions: list[Question]
) -> dict[str, list[Ranking]]:
    runs: dict[str, list[Ranking]] = {}
    engines = {"bm25": lambda: open_bm25(built)}
    if recipe.dense is not None:
        settings = recipe.dense.encoder
        engines["dense"] = lambda: open_dense(built, make_encoder(settings))
    for name, make in engines.items():
        began = time.perf_counter()
        engine = make()
        opened = time.perf_counter() - began
        began = time.perf_counter()
        runs[name] = engine.retrieve(questions, k=100)
        spent = time.perf_counter() - began
        print(
            f"{name}: opened in {opened:.2f} s, {len(questions) / spent:.1f} questions/s at k=100"
        )
    return runs


if __name__ == "__main__":
    main()
