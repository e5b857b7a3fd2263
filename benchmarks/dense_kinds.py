"""Every dense kind over the same vectors: queries/s, recall@20, memory, size, in one run.

python benchmarks/dense_kinds.py --root ROOT --index nq --questions FILE.jsonl.gz --out DIR
python benchmarks/dense_kinds.py ... --synthetic 3000000 --width 768

ROOT holds a built dense index and its corpus; nothing in it is changed. Approximate kinds are
tuned on sentences of passages, as a build does; recall is then measured on the questions, which
tuning has not seen. With --synthetic, vectors are drawn that have the statistics of the real ones
(see synthetic_vectors.py), as are the questions for tuning and, others, for measuring. Each kind
is built and searched in processes of its own. Memory: own is what the process holds itself,
mapped what it has read of files that are mapped, which the system may drop, and the resident
process both with Python and its libraries (no encoder is loaded). Speeds are given by
the clock and by the process' own CPU time, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from rag_frozen.artifacts import find_artifact, load_manifest
from rag_frozen.corpus import open_corpus
from rag_frozen.indexing.dense import build_search, is_dense_file, open_search
from rag_frozen.indexing.dense_sizes import dense_sizes
from rag_frozen.indexing.encoders import make_encoder
from rag_frozen.indexing.tuning_queries import tuning_texts
from rag_frozen.recipes.index import DenseSettings, EncoderSettings, TuningSettings
from rag_frozen.retrieval.dense_tuning import Neighbours, exact_neighbours, recall
from rag_frozen.retrieval.dense_vectors import StoredVectors

KINDS = ("flat", "scalar-fp16", "exact-torch", "scalar-int8", "hnsw", "ivf-pq-fastscan")
K = 20
MIB = 2**20
_ALONE_SECONDS = 15.0
"""Of CPU time for questions that are asked one by one, up to 50 of them."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--index", default="nq")
    parser.add_argument("--questions", type=Path, required=True, help="JSONL with a question each")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--recall", type=float, default=0.98)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--synthetic", type=int, help="so many synthetic vectors")
    parser.add_argument("--width", type=int, default=768, help="of the synthetic vectors")
    parser.add_argument("--clusters", type=int, default=4_096)
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.step is not None:
        what, kind = options.step
        found = {"prepare": prepare, "build": build, "search": search}[what](options, kind)
        (options.out / "step.json").write_text(json.dumps(found))
        return
    _report(options, step(options, "prepare", "-"))
    rows: list[dict[str, Any]] = []
    for kind in options.kinds.split(","):
        made = step(options, "build", kind)
        rows.append({"kind": kind, **made, **step(options, "search", kind)})
        print(_line(rows[-1]), flush=True)
        _store(options.out / "result.json", rows[-1])


def _store(path: Path, row: dict[str, Any]) -> None:
    """Put a kind's row in the place of an older one, so that kinds can be measured one by one."""
    rows = json.loads(path.read_text()) if path.exists() else []
    rows = [other for other in rows if other["kind"] != row["kind"]]
    path.write_text(json.dumps([*rows, row], indent=1))


def step(options: argparse.Namespace, what: str, kind: str) -> dict[str, Any]:
    """Run one step in a process of its own, so that its memory is its own."""
    subprocess.run([sys.executable, __file__, *sys.argv[1:], "--step", what, kind], check=True)
    found: dict[str, Any] = json.loads((options.out / "step.json").read_text())
    return found


def prepare(options: argparse.Namespace, _: str) -> dict[str, Any]:
    """Write vectors, tuning queries, measured queries and their true neighbours."""
    folder = options.out / "vectors"
    folder.mkdir(exist_ok=True)
    done = options.out / "prepared.json"
    if done.exists():
        found: dict[str, Any] = json.loads(done.read_text())
        return found
    real = find_artifact(options.root, "index", name=f"{options.index}-dense")
    recorded = load_manifest(real, kind="index").recipe["encoder"]
    encoder = make_encoder(TypeAdapter(EncoderSettings).validate_python(recorded))
    questions = encoder.encode_questions(_questions(options.questions, options.queries))
    if options.synthetic is None:
        for file in sorted(path for path in real.iterdir() if is_dense_file(path)):
            if file.name.startswith("vectors-") and not (folder / file.name).exists():
                (folder / file.name).write_bytes(file.read_bytes())
        store = open_corpus(find_artifact(options.root, "corpus", name=options.index))
        tuning = encoder.encode_questions(tuning_texts(TuningSettings(), store))
        note = "real passages and questions; tuned on sentences of passages"
    else:
        tuning, questions, note = _synthetic(options, StoredVectors(real), questions, folder)
    vectors = StoredVectors(folder)
    truth = exact_neighbours(vectors, questions, k=K)
    np.save(options.out / "tuning.npy", tuning)
    np.save(options.out / "queries.npy", questions)
    np.save(options.out / "truth.npy", truth.rows)
    found = {"n": len(vectors), "width": vectors.width, "dtype": vectors.dtype, "note": note}
    found["statistics"] = _statistics(vectors, questions, truth)
    done.write_text(json.dumps(found))
    return found


def build(options: argparse.Namespace, kind: str) -> dict[str, Any]:
    """Build and tune a kind beside links to the vectors."""
    folder = _folder(options, kind)
    before = _memory()
    began, worked = time.perf_counter(), time.process_time()
    settings = _settings(options, kind)
    measures = build_search(
        settings, folder, queries=lambda _: np.load(options.out / "tuning.npy"), progress=_show
    )
    seconds, cpu = time.perf_counter() - began, time.process_time() - worked
    (folder / "measures.json").write_text(json.dumps(measures))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    size = sum(path.stat().st_size for path in folder.iterdir() if is_dense_file(path))
    return {
        "build_seconds": seconds,
        "build_cpu_seconds": cpu,
        "build_peak": peak - before["rss"],
        "disk": size,
        "measures": measures,
    }


def search(options: argparse.Namespace, kind: str) -> dict[str, Any]:
    """Open a kind, search in batches and one by one."""
    folder = _folder(options, kind)
    measures = json.loads((folder / "measures.json").read_text())
    queries = np.load(options.out / "queries.npy")
    truth = Neighbours(np.load(options.out / "truth.npy"), K)
    settings = _settings(options, kind)
    before = _memory()
    began = time.perf_counter()
    engine = open_search(settings, folder, measures)
    opened = time.perf_counter() - began
    batches = [queries[at : at + options.batch] for at in range(0, len(queries), options.batch)]
    engine.search(batches[0], k=K)
    speeds, of_cpu = [], []
    for _ in range(options.rounds):
        began, worked = time.perf_counter(), time.process_time()
        rows = np.concatenate([engine.search(batch, k=K)[1] for batch in batches])
        of_cpu.append(len(queries) / (time.process_time() - worked))
        speeds.append(len(queries) / (time.perf_counter() - began))
    alone = []
    for query in queries[:: max(1, len(queries) // 50)][:50]:
        worked = time.process_time()
        engine.search(query[None], k=K)
        alone.append(time.process_time() - worked)
        if len(alone) >= 5 and sum(alone) > _ALONE_SECONDS:
            break
    after = _memory()
    predicted = dense_sizes(settings, len(engine), engine.width, id_bytes=0)
    return {
        "open_seconds": opened,
        "queries_per_second": statistics.median(speeds),
        "queries_per_cpu_second": statistics.median(of_cpu),
        "rounds": speeds,
        "one_query_ms": 1000 * statistics.median(alone),
        "recall": recall(rows, truth),
        "own": after["own"] - before["own"],
        "mapped": after["mapped"] - before["mapped"],
        "process": after["rss"],
        "predicted_own": predicted.own,
        "predicted_mapped": predicted.mapped,
    }


def _synthetic(
    options: argparse.Namespace, real: StoredVectors, questions: Any, folder: Path
) -> tuple[Any, Any, str]:
    from synthetic_vectors import draw_questions, draw_vectors, fit_mixture

    nearest = real.take(exact_neighbours(real, questions, k=1).rows[:, 0])
    sample = real.sample(40 * options.clusters, seed=0)
    mixture = fit_mixture(
        sample, questions, nearest, clusters=options.clusters, width=options.width, seed=0
    )
    for number, block in enumerate(draw_vectors(mixture, options.synthetic, seed=1)):
        np.save(folder / f"vectors-{number:05d}.npy", block.astype(np.float16))
        _show(65_536 * number + len(block))
    made = StoredVectors(folder)
    asked = draw_questions(mixture, made.sample(2 * options.queries, seed=2), seed=3)
    note = (
        f"SYNTHETIC vectors and questions: mixture of {options.clusters:,} clusters fitted to "
        f"{len(sample):,} real vectors of {real.width}; tuned on other synthetic questions"
    )
    return asked[0::2], asked[1::2], note


def _statistics(vectors: StoredVectors, queries: Any, truth: Neighbours) -> dict[str, float]:
    """How near the neighbours are: what makes search easy or hard."""
    rows = truth.rows[:, [0, K - 1]]
    near = np.einsum("qnd,qd->qn", vectors.take(rows.ravel()).reshape(*rows.shape, -1), queries)
    any_two = queries @ vectors.sample(2_000, seed=0).T
    return {
        "first": float(near[:, 0].mean()),
        f"rank {K}": float(near[:, 1].mean()),
        "any": float(any_two.mean()),
        "spread of any": float(any_two.std()),
    }


def _settings(options: argparse.Namespace, kind: str) -> Any:
    values: dict[str, Any] = {
        "kind": kind,
        "encoder": {"kind": "sentence-transformers", "model": "as stored"},
    }
    if kind in ("scalar-int8", "hnsw", "ivf-pq-fastscan"):
        values["recall"] = options.recall
    return TypeAdapter(DenseSettings).validate_python(values)


def _folder(options: argparse.Namespace, kind: str) -> Path:
    folder: Path = options.out / kind
    folder.mkdir(exist_ok=True)
    for file in (options.out / "vectors").iterdir():
        if not (folder / file.name).exists():
            os.link(file, folder / file.name)
    return folder


def _questions(file: Path, n: int) -> list[str]:
    import gzip

    opened = gzip.open if file.suffix == ".gz" else open
    with opened(file, "rt", encoding="utf-8") as rows:
        return [str(json.loads(row)["question"]) for row in islice(rows, n)]


def _memory() -> dict[str, int]:
    text = Path("/proc/self/smaps_rollup").read_text()
    rss, own = (
        int(re.search(rf"^{name}:\s+(\d+)", text, re.M)[1]) * 1024  # type: ignore[index]
        for name in ("Rss", "Anonymous")
    )
    return {"rss": rss, "own": own, "mapped": rss - own}


def _show(done: int) -> None:
    print(f"\r  {done:,}", end="", file=sys.stderr, flush=True)


def _report(options: argparse.Namespace, found: dict[str, Any]) -> None:
    import faiss
    import torch

    threads = os.environ.get("OMP_NUM_THREADS", str(os.cpu_count()))
    print(f"{found['n']:,} x {found['width']}, {found['dtype']}: {found['note']}")
    print("inner products:", {k: round(v, 3) for k, v in found["statistics"].items()})
    print(
        f"{options.queries:,} questions, batches of {options.batch}, k = {K}, median of "
        f"{options.rounds} rounds; {threads} threads; faiss {faiss.__version__}, torch "
        f"{torch.__version__}\n"
    )
    columns = (
        "kind", "tuned", "recall@20", "queries/s", "by CPU time", "one query, CPU", "own memory",
        "mapped", "resident process", "predicted own, mapped", "disk",
        "build, CPU and peak memory", "open",
    )  # fmt: skip
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns), flush=True)


def _line(row: dict[str, Any]) -> str:
    tuned = ", ".join(
        f"{name} {value:.4g}" for name, value in row["measures"].items() if "queries" not in name
    )
    cells = (
        f"`{row['kind']}`",
        tuned or "exact",
        f"{row['recall']:.4f}",
        f"{row['queries_per_second']:.1f}",
        f"{row['queries_per_cpu_second']:.1f}",
        f"{row['one_query_ms']:.1f} ms",
        f"{row['own'] / MIB:,.0f} MiB",
        f"{row['mapped'] / MIB:,.0f} MiB",
        f"{row['process'] / MIB:,.0f} MiB",
        f"{row['predicted_own'] / MIB:,.0f}, {row['predicted_mapped'] / MIB:,.0f} MiB",
        f"{row['disk'] / MIB:,.0f} MiB",
        f"{row['build_cpu_seconds']:.0f} s, {row['build_peak'] / MIB:,.0f} MiB",
        f"{row['open_seconds']:.2f} s",
    )
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
