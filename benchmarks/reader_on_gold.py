"""A pocket reader alone, given each question's gold passage, or that among hard distractors:
exact match, F1, questions/s.

python benchmarks/reader_on_gold.py FILE.jsonl.gz     (rows: question, answers, title, text)
python benchmarks/reader_on_gold.py FILE.jsonl.gz --readers pocket/reader OTHER \
    --distractors 2 --run retrieve.trec --corpus FOLDER

Distractors are the first passages of a stored run (its ids are the rows' numbers or ids) that hold
no answer; the gold passage stands at a place drawn by a fixed seed. With --one-by-one each passage
is read alone, as pipelines with ``reading: {kind: each}`` do, and all count the same.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from itertools import islice
from pathlib import Path

from rag_frozen.build import load_pipeline
from rag_frozen.corpus import open_corpus
from rag_frozen.evaluation.metrics import exact_match, f1, has_answer
from rag_frozen.evaluation.statistics import bootstrap_interval, mcnemar_p
from rag_frozen.normalization import normalize_answer
from rag_frozen.pipeline import Pipeline
from rag_frozen.reader.each import merge
from rag_frozen.retrieval.replay import read_trec_run
from rag_frozen.training.files import read_json_lines
from rag_frozen.types import Generation, Passage, Question, ReadAlone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--readers", nargs="+", default=["pocket/reader"])
    parser.add_argument("--distractors", type=int, default=0)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--one-by-one", action="store_true")
    given = parser.parse_args()
    rows = list(read_json_lines(given.file))
    questions = [Question(str(n), str(row["question"])) for n, row in enumerate(rows)]
    passages = [[Passage(str(n), str(r["title"]), str(r["text"]))] for n, r in enumerate(rows)]
    if given.distractors:
        passages = with_distractors(rows, passages, given)
    first: list[bool] = []
    for reader in given.readers:
        pipeline = load_pipeline(
            "pocket",
            overrides=[
                "retrieval={kind: closed-book}",
                f"reader.model={reader}",
                f"packing.max_passages={given.distractors + 1}",
            ],
        )
        began = time.perf_counter()
        if given.one_by_one:
            generations = one_by_one(pipeline, questions, passages)
            held = f"{given.distractors + 1} passages read one by one"
        else:
            contexts = pipeline.packer.pack(questions, passages)
            n_packed = sum(len(context.kept) for context in contexts) / len(contexts)
            held = f"{n_packed:.2f} passages packed"
            generations = pipeline.reader.generate(contexts)
        spent = time.perf_counter() - began
        pairs = [(g.text, row["answers"]) for g, row in zip(generations, rows, strict=True)]
        matched = [bool(exact_match(*pair)) for pair in pairs]
        low, high = bootstrap_interval([float(one) for one in matched])
        against = f"; McNemar against the first p {mcnemar_p(matched, first):.2g}" if first else ""
        first = first or matched
        print(
            f"{reader}: {len(rows)} questions, {held}: exact match "
            f"{100 * sum(matched) / len(rows):.1f} [{100 * low:.1f}, {100 * high:.1f}], F1 "
            f"{100 * sum(f1(*pair) for pair in pairs) / len(rows):.1f}, empty "
            f"{sum(not g.text for g in generations)}; {len(rows) / spent:.1f} questions/s{against}",
            flush=True,
        )


def one_by_one(
    pipeline: Pipeline, questions: list[Question], passages: list[list[Passage]]
) -> list[Generation]:
    """Read each passage alone; choose the answer with the greatest sum of probabilities."""
    pairs = [(q, p) for q, some in zip(questions, passages, strict=True) for p in some]
    contexts = pipeline.packer.pack([q for q, _ in pairs], [[p] for _, p in pairs])
    written = zip(pairs, pipeline.reader.generate(contexts), strict=True)
    made = []
    for some in passages:
        prior = -math.log(len(some))
        read = [ReadAlone(p.id, said, prior) for (_, p), said in islice(written, len(some))]
        made.append(merge(read, normalize=normalize_answer))
    return made


def with_distractors(
    rows: list, passages: list[list[Passage]], given: argparse.Namespace
) -> list[list[Passage]]:
    """Put the gold passage among the first retrieved passages that hold no answer."""
    rankings = read_trec_run(given.run)
    store = open_corpus(given.corpus)
    chance = random.Random(0)
    made = []
    for number, (row, [gold]) in enumerate(zip(rows, passages, strict=True)):
        ranking = rankings.get(str(row.get("id", number))) or rankings[str(number)]
        near = store.get([hit.passage_id for hit in ranking[:50]])
        wrong = [p for p in near if p.text != gold.text and not has_answer(p.text, row["answers"])]
        chosen = wrong[: given.distractors]
        chosen.insert(chance.randint(0, len(chosen)), gold)
        made.append(chosen)
    return made


if __name__ == "__main__":
    main()
