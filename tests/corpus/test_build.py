"""Building a corpus: whole or not at all, whatever happens on the way."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag_frozen.artifacts import fingerprint, load_manifest, verify
from rag_frozen.corpus import build_corpus, open_corpus, read_passages, store_writing
from rag_frozen.corpus import store as store_module
from rag_frozen.corpus.ids import ids_digest
from rag_frozen.corpus.store import ArrowPassageStore
from rag_frozen.corpus.store_writing import write_store
from rag_frozen.errors import ArtifactDamagedError, InputError, StorageError, UnknownPassageError
from rag_frozen.types import Passage

from ..artifacts.disks import small_disk

PASSAGES = [Passage(f"i{n}", f"t{n % 9}", f"text {n}") for n in range(5_000)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "passages.jsonl"
    rows = ({"id": p.id, "title": p.title, "text": p.text} for p in PASSAGES)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def files_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_the_manifest_holds_counts_and_digests_and_its_own_fingerprint(
    source: Path, tmp_path: Path
) -> None:
    built = build_corpus(source, tmp_path / "root", name="c")
    manifest = verify(built.folder, kind="corpus")
    assert manifest == built.manifest == load_manifest(built.folder)
    assert manifest.counts == {"passages": 5_000, "malformed": 0}
    assert manifest.digests["ids"] == ids_digest(passage.id for passage in PASSAGES)
    assert fingerprint(manifest.recipe, manifest.inputs) == built.folder.name
    store = open_corpus(built.folder)
    assert [passage for batch in store.iter_passages(999) for passage in batch] == PASSAGES


def test_settings_and_order_change_the_fingerprint_but_the_form_of_the_file_does_not(
    source: Path, tmp_path: Path
) -> None:
    def built(path: Path, **settings: Any) -> str:
        return build_corpus(path, tmp_path / "root", name="c", **settings).folder.name

    table = tmp_path / "passages.tsv"
    table.write_text(
        "id\ttext\ttitle\n" + "".join(f"{p.id}\t{p.text}\t{p.title}\n" for p in PASSAGES)
    )
    turned = tmp_path / "turned.jsonl"
    turned.write_text("".join(reversed(source.read_text().splitlines(keepends=True))))
    plain = built(source)
    assert built(table) == plain
    assert len({plain, built(turned), built(source, chunk_words=100)}) == 3


def test_progress_rises_and_ends_at_the_number_of_passages(source: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    build_corpus(
        source,
        tmp_path / "root",
        name="c",
        progress=lambda done, total: told.append((done, total)),
    )
    assert told[-1] == (5_000, 5_000)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert len(told) > 3


def test_a_disk_that_is_full_at_the_last_moment_leaves_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="bytes free"):
            build_corpus(source, tmp_path / "root", name="c")
    assert files_below(tmp_path / "root") == []
    build_corpus(source, tmp_path / "root", name="c")


def test_a_disk_that_is_full_at_any_moment_leaves_nothing(source: Path, tmp_path: Path) -> None:
    """From room for nothing to room for all, so that each file in turn is the one that fails."""
    outcomes = []
    for kib in range(4, 400, 20):
        with small_disk(tmp_path / "disk", kib=kib) as disk:
            try:
                build_corpus(source, disk, name="c")
            except StorageError as error:
                outcomes.append("full" if str(disk) in str(error) else str(error))
            else:
                outcomes.append("built")
            assert ("manifest.json" in files_below(disk)) == (outcomes[-1] == "built")
            assert bool(files_below(disk)) == (outcomes[-1] == "built")
    assert outcomes[0] == "full"
    assert outcomes[-1] == "built"
    assert outcomes == sorted(outcomes, reverse=True)


KILLED = """
import sys, time
from rag_frozen.corpus import build_corpus

def slow(done, total):
    print(done, flush=True)
    time.sleep(0.02)

build_corpus(sys.argv[1], sys.argv[2], name="c", progress=slow)
"""


@pytest.mark.parametrize("moment", [1_000, 5_000])
def test_a_killed_build_leaves_nothing_half_written(
    source: Path, tmp_path: Path, moment: int
) -> None:
    root = tmp_path / "root"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(source), str(root)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    while (line := process.stdout.readline()) and int(line) < moment:
        pass
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    for folder in (root / "corpora" / "c").iterdir():  # hidden, or whole
        if not folder.name.startswith("."):
            verify(folder)
    built = build_corpus(source, root, name="c")
    verify(built.folder)
    assert [path.name for path in (root / "corpora" / "c").iterdir()] == [built.folder.name]


def test_the_memory_of_an_open_store_does_not_grow_with_the_corpus(
    tmp_path: Path,
) -> None:
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("resident memory is read from /proc")

    def resident() -> int:
        lines = status.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))

    passages = [Passage(f"i{n}", "t", "x" * 4_000) for n in range(20_000)]  # 80 MB
    write_store(tmp_path, iter(passages))
    store = ArrowPassageStore(tmp_path)
    before = resident()
    for start in range(0, 20_000, 100):
        store.get([f"i{n * 7919 % 20_000}" for n in range(start, start + 100)])
    after_lookups = resident() - before
    count = sum(len(batch) for batch in store.iter_passages(100))
    assert count == 20_000
    assert after_lookups < 60_000
    assert resident() - before < 60_000


def test_ids_of_one_hash_are_told_apart_by_the_id_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def colliding(ids: list[str]) -> np.ndarray:
        return np.array([len(one) for one in ids], dtype=np.uint64)

    monkeypatch.setattr(store_module, "hash_ids", colliding)
    monkeypatch.setattr(store_writing, "hash_ids", colliding)
    write_store(tmp_path, PASSAGES)
    store = ArrowPassageStore(tmp_path)
    asked = PASSAGES[4_990:] + PASSAGES[:10]
    assert store.get([passage.id for passage in asked]) == asked
    with pytest.raises(UnknownPassageError, match="'j1'"):
        store.get(["j1"])


def test_two_passages_of_one_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"passages 3 and 5,000 .* 'i3'"):
        write_store(tmp_path, [*PASSAGES, Passage("i3", "t", "another text")])


def test_a_corpus_of_another_kind_or_without_a_manifest_is_refused(
    source: Path, tmp_path: Path
) -> None:
    built = build_corpus(source, tmp_path / "root", name="c")
    path = built.folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"kind": "index"}))
    with pytest.raises(ArtifactDamagedError, match="one of kind corpus is needed"):
        open_corpus(built.folder)


def test_real_passages_are_all_read(real_data: Path, tmp_path: Path) -> None:
    file = real_data / "corpus" / "nq_gold_passages-000.jsonl.gz"
    reader = read_passages(file)
    passages = list(reader)
    assert reader.report.malformed == 0
    assert len(passages) > 1_000
    store = open_corpus(build_corpus(file, tmp_path, name="gold").folder)
    assert store.get([passage.id for passage in passages[::50]]) == passages[::50]
