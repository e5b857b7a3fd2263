"""The pocket reader alone, given the gold passage of each question: exact match, F1, questions/s.

python benchmarks/reader_on_gold.py FILE.jsonl.gz     (rows: question, answers, title, text)
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from rag_frozen.build import load_pipeline
from rag_frozen.evaluation.metrics import exact_match, f1
from rag_frozen.evaluation.statistics import bootstrap_interval
from rag_frozen.training.reading_data import read_json_lines
from rag_frozen.types import Passage, Question


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    rows = list(read_json_lines(parser.parse_args().file))
    pipeline = load_pipeline("pocket", overrides=["retrieval={kind: closed-book}"])
    questions = [Question(str(n), str(row["question"])) for n, row in enumerate(rows)]
    passages = [[Passage(str(n), str(r["title"]), str(r["text"]))] for n, r in enumerate(rows)]
    contexts = pipeline.packer.pack(questions, passages)
    began = time.perf_counter()
    generations = pipeline.reader.generate(contexts)
    spent = time.perf_counter() - began
    pairs = [(g.text, row["answers"]) for g, row in zip(generations, rows, strict=True)]
    matched = [float(exact_match(*pair)) for pair in pairs]
    low, high = bootstrap_interval(matched)
    print(
        f"{len(rows)} questions, gold passage given: exact match "
        f"{100 * sum(matched) / len(rows):.1f} [{100 * low:.1f}, {100 * high:.1f}], F1 "
        f"{100 * sum(f1(*pair) for pair in pairs) / len(rows):.1f}; {len(rows) / spent:.1f} "
        "questions/s"
    )


if __name__ == "__main__":
    main()
