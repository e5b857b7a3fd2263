"""Plans: what a sample foretells, and builds that are refused before anything is encoded."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest

from rag_frozen.errors import RecipeError, StorageError
from rag_frozen.indexing import build as building
from rag_frozen.indexing import encoders, fitting, plan, sampling
from rag_frozen.recipes.index import (
    FlatDense,
    HnswDense,
    IndexRecipe,
    IvfPqDense,
    SentenceEncoderSettings,
)
from rag_frozen.retrieval.tantivy_segments import plan_segments
from tests.indexing.test_build import Counting, recipe

ENCODER = SentenceEncoderSettings(kind="sentence-transformers", model="any")
WORDS = [f"word{n}" for n in range(3_000)]


@pytest.fixture(autouse=True)
def encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    Counting.encoded = 0
    monkeypatch.setattr(encoders, "make_encoder", lambda settings, device=None: Counting())


def write(path: Path, n: int, *, words: int) -> None:
    chance = random.Random(path.name)
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8") as file:
        for number in range(n):
            text = " ".join(chance.choices(WORDS, k=words))
            row = {"id": f"{path.name}:{number}", "title": f"T{number}", "text": text}
            file.write(json.dumps(row) + "\n")


def test_a_plan_from_a_sample_is_near_what_the_build_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(plan, "_SAMPLE", 2_048)
    folder = tmp_path / "files"
    folder.mkdir()
    write(folder / "long.jsonl.gz", 5_000, words=90)
    write(folder / "short.jsonl", 15_000, words=20)
    settings = recipe(tmp_path, corpus={"kind": "files", "path": folder})
    found = plan.plan_index(settings, root=tmp_path)
    built = building.build_index(settings, root=tmp_path)
    assert found.n_passages == pytest.approx(20_000, rel=0.05)
    assert found.basis == "estimated from 2,048 passages"
    for step in found.steps:
        assert step.disk_bytes == pytest.approx(built.part(step.part).size, rel=0.15), step.part
        assert step.seconds > 0
        assert step.memory_bytes > 2**28
    assert [kind.kind for kind in found.kinds] == [
        "flat", "scalar-fp16", "scalar-int8", "ivf-pq-fastscan", "hnsw", "exact-torch",
    ]  # fmt: skip
    assert found.chosen_kind == "flat"
    seconds = {kind.kind: kind.build_seconds for kind in found.kinds}
    assert seconds.pop("flat") == 0
    assert all(0 < spent < 600 for spent in seconds.values())
    assert found.fits
    assert json.loads(json.dumps(found.to_json()))["fits"] is True


def test_reading_many_files_is_timed_by_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of a sample's share of each file, most of the time would go into opening them."""
    monkeypatch.setattr(sampling, "_TIMED", 1_500)
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(40):
        write(folder / f"{number}.jsonl.gz", 100, words=20)
    read: list[int] = []
    rows = sampling.RowSource.passages

    def counted(self, work):
        read.append(0)
        for passage in rows(self, work):
            read[-1] += 1
            yield passage

    monkeypatch.setattr(sampling.RowSource, "passages", counted)
    settings = recipe(tmp_path, corpus={"kind": "files", "path": folder})
    sample = sampling.sample_corpus(settings, n=80, work=tmp_path)
    assert not sample.whole
    assert read == [2] * 40 + [100] * 15
    assert 0 < sample.seconds_each < 0.01


def test_a_plan_can_reckon_with_more_passages_than_there_are(tmp_path: Path):
    write(tmp_path / "rows.jsonl", 400, words=60)
    settings = recipe(tmp_path, corpus={"kind": "files", "path": tmp_path / "rows.jsonl"})
    here = plan.plan_index(settings, root=tmp_path)
    there = plan.plan_index(settings, root=tmp_path, n_passages=21_015_324)
    assert (here.basis, there.basis) == ("all passages", "extrapolated from 400 passages")
    assert there.n_passages == 21_015_324
    of = {step.part: step.disk_bytes for step in here.steps}
    for step in there.steps:
        growth = step.disk_bytes / of[step.part] / (21_015_324 / 400)
        if step.part == "bm25":  # its vocabulary grows slower, and 400 passages tell little of it
            assert 0.02 < growth < 2
        else:
            assert growth == pytest.approx(1, rel=0.2), step.part
    assert there.steps[-1].seconds > here.steps[-1].seconds
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    size = sum(len(row["title"]) + len(row["text"]) for row in rows)
    for found, n in ((here, 400), (there, 21_015_324)):
        [bm25] = [step for step in found.steps if step.part == "bm25"]
        written = plan_segments(n, round(size * n / 400))
        assert bm25.memory_bytes - written.memory == pytest.approx(320 * 2**20, abs=2**20)
    assert (written.parts, written.one_segment) == (64, True)


def test_a_plan_of_a_small_corpus_is_exact_in_its_passages(tmp_path: Path):
    found = plan.plan_index(recipe(tmp_path), root=tmp_path)
    assert (found.n_passages, found.basis) == (40, "all passages")
    (tmp_path / "rows.jsonl").write_text("\n")
    with pytest.raises(RecipeError, match="holds no passage"):
        plan.plan_index(recipe(tmp_path), root=tmp_path)


def test_documents_that_are_cut_are_counted_as_passages(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(plan, "_SAMPLE", 512)
    write(tmp_path / "long.jsonl", 1_500, words=400)
    corpus = {"kind": "files", "path": tmp_path / "long.jsonl", "chunk_words": 100}
    settings = IndexRecipe(kind="index", name="cut", corpus=corpus)  # type: ignore[arg-type]
    assert plan.plan_index(settings, root=tmp_path).n_passages == pytest.approx(6_000, rel=0.1)


def test_what_cannot_fit_is_refused_with_the_kinds_that_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fitting, "machine_memory", lambda: 24 * 2**30)
    monkeypatch.setattr(fitting, "free_disk", lambda folder: 200 * 2**30)
    wikipedia = {"n_passages": 21_015_324, "width": 768, "folder": tmp_path}
    flat = FlatDense(kind="flat", encoder=ENCODER)
    with pytest.raises(StorageError, match=r"flat over 21,015,324.*60\.\d GiB of memory.*24\.0"):
        fitting.refuse_what_cannot_fit(flat, **wikipedia)
    with pytest.raises(StorageError, match=r"kinds scalar-int8, ivf-pq-fastscan, exact-torch wou"):
        fitting.refuse_what_cannot_fit(flat, **wikipedia)
    graph = HnswDense(kind="hnsw", encoder=ENCODER)  # served from a file, but built in memory
    with pytest.raises(StorageError, match=r"hnsw over 21,015,324.*36\.\d GiB of memory.*24\.0"):
        fitting.refuse_what_cannot_fit(graph, **wikipedia)
    fitting.refuse_what_cannot_fit(IvfPqDense(kind="ivf-pq-fastscan", encoder=ENCODER), **wikipedia)
    monkeypatch.setattr(fitting, "free_disk", lambda folder: 2**30)
    with pytest.raises(StorageError, match="No kind would fit"):
        fitting.refuse_what_cannot_fit(flat, **wikipedia)
    fitting.refuse_what_cannot_fit(
        IvfPqDense(kind="ivf-pq-fastscan", encoder=ENCODER), there=60 * 2**30, **wikipedia
    )


def test_a_build_is_refused_before_anything_is_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fitting, "machine_memory", lambda: 2**29)
    with pytest.raises(StorageError, match=r"of memory, of which this machine has 0\.5 GiB"):
        building.build_index(recipe(tmp_path), root=tmp_path)
    assert Counting.encoded == 0
    monkeypatch.undo()
    monkeypatch.setattr(encoders, "make_encoder", lambda settings, device=None: Counting())
    assert building.build_index(recipe(tmp_path), root=tmp_path).part("corpus").reused
