"""A small world of painters and towns for the tests of reranker and retriever training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from rag_frozen.types import Passage
from tests.tiny import save_bert

KINGS = ["anna", "boris", "clara", "dmitri", "elena", "felix"]
PLACES = ["Riga", "Lyon", "Quito", "Osaka", "Turin", "Accra"]
LEFT_OUT = {"3", "4"}


def passage(n: int) -> dict[str, str]:
    """Passage n: who lived where; 6 people, 60 houses."""
    name, place = KINGS[n % 6], PLACES[n % 6]
    text = f"The painter {name} lived in {place} in {1500 + n}. The house stands there."
    return {"id": str(n), "title": f"{name} {n % 4}", "text": text}


def found(n: int) -> dict[str, str]:
    """Passage n as a mined row holds it."""
    one = passage(n)
    return {"pid": one["id"], "title": one["title"], "text": one["text"]}


def row(n: int, asked: str) -> dict[str, Any]:
    """A row with its negatives by id, the second of which is left out and the third of which
    answers after all."""
    fields = {**found(n), "id": str(n), "question": asked, "answers": [PLACES[n % 6]]}
    return {**fields, "rank": n % 7, "q_overlap": 0.8, "neg_pids": [str(n + 1), "3", str(n + 6)]}


def mined(n: int, asked: str) -> dict[str, Any]:
    """A row as ``rag-frozen mine`` writes it: two positives, three negatives."""
    positives = [found(n), found((n + 6) % 60)]
    negatives = [found((n + k) % 60) for k in (1, 2, 8)]
    return {
        "id": str(n), "question": asked, "answers": [PLACES[n % 6]], **positives[0],
        "rank": n % 3, "q_overlap": 0.7, "neg_pids": [one["pid"] for one in negatives],
        "positives": positives, "negatives": negatives,
    }  # fmt: skip


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """JSON lines."""
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")


def write_world(folder: Path) -> Path:
    """Corpus, rows, silver rows, mined rows and candidates, and the list of what is left out."""
    write(folder / "corpus.jsonl", [passage(n) for n in range(60)])
    write(folder / "rows.jsonl", [row(n, f"where did {KINGS[n % 6]} live {n}") for n in range(50)])
    silver = [f"home of {KINGS[n % 6]} {n}" for n in range(40)]
    write(folder / "silver.jsonl", [row(n, asked) for n, asked in enumerate(silver)])
    write(folder / "mined.jsonl", [mined(n, asked) for n, asked in enumerate(silver)])
    (folder / "leave-out.txt").write_text("\n".join(sorted(LEFT_OUT)), encoding="utf-8")
    return folder


def data(folder: Path, **changes: Any) -> dict[str, Any]:
    """The ``data`` part of a recipe over :func:`write_world`."""
    hub = {"name": "none"}
    rows = {"name": "rows", "file": "rows.jsonl"}
    silver = {"name": "silver", "file": "silver.jsonl", "max_rank": 5, "min_overlap": 0.6}
    fields = {
        "path": str(folder),
        "passages": {"files": ["corpus.jsonl"], "exclude": "leave-out.txt", "hub": hub},
        "questions": [rows, silver],
        "held_out": {"titles": rows, "rows": silver, "n_titles": 2, "n_rows": 8},
    }
    return {**fields, **changes}


def with_scores(folder: Path) -> Path:
    """Give the mined rows' passages the scores of a retriever, in the order of their ranks."""
    made = []
    for n in range(40):
        one = mined(n, f"home of {KINGS[n % 6]} {n}")
        good, bad = one["positives"], one["negatives"]
        order = [*bad[: one["rank"]], *good, *bad[one["rank"] :]]
        scores = {p["pid"]: 1.0 - 0.1 * rank for rank, p in enumerate(order)}
        for p in order:
            p["score"] = scores[p["pid"]]
        made.append(one)
    write(folder / "mined.jsonl", made)
    return folder


def only_mined(folder: Path) -> dict[str, Any]:
    """The same, trained on mined rows alone, whose candidates are the validation's: no corpus."""
    made = data(folder, questions=[{"name": "mined", "file": "mined.jsonl"}])
    made["held_out"]["candidates"] = "mined.jsonl"
    return made


def passages(*numbers: int) -> tuple[Passage, ...]:
    """Some of the world's passages."""
    return tuple(Passage(**passage(n)) for n in numbers)


def sentence_encoder(folder: Path, *, seed: int = 0) -> Path:
    """Save a tiny sentence-transformers model of the common form."""
    save_bert(folder, seed=seed)
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (kind, path) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 64}', encoding="utf-8")
    (folder / "1_Pooling").mkdir(exist_ok=True)
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")
    return folder


def copy_of(folder: Path, target: Path) -> Path:
    """A copy that a test may damage."""
    shutil.copytree(folder, target)
    return target
