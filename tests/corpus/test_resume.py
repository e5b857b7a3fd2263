"""A corpus build that is stopped at any moment goes on, and ends in the same bytes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rag_frozen.artifacts import Manifest, held_folder, verify
from rag_frozen.corpus import build as building
from rag_frozen.corpus import build_corpus, files, open_corpus
from rag_frozen.corpus.build import CorpusArtifact, build_corpus_from
from rag_frozen.corpus.folders import read_folder
from rag_frozen.corpus.hub import HubDataset, read_dataset
from rag_frozen.corpus.mediawiki import blocks as dump_blocks
from rag_frozen.corpus.mediawiki.articles import Cutting
from rag_frozen.corpus.mediawiki.options import WikiOptions
from rag_frozen.corpus.mediawiki.reader import DumpSource
from rag_frozen.corpus.mediawiki.selection import Selection
from rag_frozen.corpus.readers import read_passages
from rag_frozen.corpus.sources import CorpusSource, RowSource
from rag_frozen.corpus.store_writing import StoreWriter
from rag_frozen.errors import InputError, StorageError
from rag_frozen.types import Passage

from ..artifacts.disks import small_disk
from .mediawiki.dumps import MadePage, dump_text, multistream

pytest.importorskip("mwxml")
pytest.importorskip("mwparserfromhell")

ROWS = 3_600
SHARD = 900
KINDS = ("jsonl", "tsv", "chunked", "dump", "damaged", "selected")


def write_rows(path: Path) -> Path:
    """Rows with faults and repeated ids, some far behind what they repeat."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(ROWS):
            row = {"id": f"i{number}", "title": f"t{number % 9}", "text": f"text é {number} " * 8}
            if number % 500 == 17:
                file.write("{broken\n\n")
            if number % 700 == 600:
                row["id"] = f"i{number - 597}"
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


def write_table(path: Path) -> Path:
    """DPR's form; some rows go over lines, one quote never closes."""
    lines = ["id\ttext\ttitle"]
    for number in range(ROWS):
        text = f'"two\nlines of ""{number}"""' if number % 7 == 3 else f"text {number}"
        if number == 1_500:
            text = '"open'
        lines.append(f"{number}\t{text}\tt{number % 5}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def pages() -> Iterator[MadePage]:
    for number in range(300):
        words = " ".join(f"w{number}x{place}" for place in range(25 + number % 30))
        text = f"[[Page {number % 60}]] [[Alias {number // 2}]] {words}"
        yield MadePage(f"Page {number}", text, id=1_000 + number)
        yield MadePage(f"Alias {number}", id=2_000 + number, redirect=f"Page {number}")
        if number % 50 == 1:
            yield MadePage(f"Talk:Page {number}", "talk", id=3_000 + number, ns=1)
            yield MadePage(f"Again {number}", "again and again", id=5)


def write_dumps(folder: Path, *, damaged: bool) -> Path:
    folder.mkdir(exist_ok=True)
    all_pages = list(pages())
    if damaged:
        all_pages[200] = MadePage("Broken", xml="  <page>\n<title>B</tit\n</page>\n")
    half = len(all_pages) // 2
    first = dump_text(all_pages[:half]).encode()
    (folder / "wiki1.xml").write_bytes(first[: -len(first) // 9] if damaged else first)
    (folder / "wiki2.xml.bz2").write_bytes(multistream(all_pages[half:], each=200))
    return folder


def make_source(kind: str, folder: Path) -> CorpusSource:
    """A source of one kind, whose files are written when they are not there."""
    path = folder / kind
    match kind:
        case "jsonl" | "chunked":
            path = folder / "rows.jsonl"
            path = path if path.exists() else write_rows(path)
            return RowSource(read_passages(path), chunk_words=9 if kind == "chunked" else None)
        case "tsv":
            path = folder / "rows.tsv"
            path = path if path.exists() else write_table(path)
            return RowSource(read_passages(path), about={"table": "rows"})
    if not path.exists():
        write_dumps(path, damaged=kind == "damaged")
    return DumpSource(
        path,
        options=WikiOptions(),
        cutting=Cutting(n_words=4),
        damaged="keep" if kind == "damaged" else "stop",
        selection=Selection(share=0.6) if kind == "selected" else None,
    )


def build(kind: str, folder: Path, root: Path, **settings: Any) -> CorpusArtifact:
    source = make_source(kind, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "_TOLD", 50)
        return build_corpus_from(source, root, name="c", shard_size=SHARD, **settings)


def contents(folder: Path) -> dict[str, bytes]:
    """Every byte of an artifact, but for the manifest with its time."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


def same(one: CorpusArtifact, other: CorpusArtifact) -> None:
    assert contents(one.folder) == contents(other.folder)
    assert told(one.manifest) == told(other.manifest)
    assert (one.report.kept, one.report.reasons) == (other.report.kept, other.report.reasons)
    verify(other.folder)


def told(manifest: Manifest) -> tuple[object, ...]:
    return (
        manifest.fingerprint, manifest.counts, manifest.digests, manifest.files, manifest.inputs,
    )  # fmt: skip


def shards(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("unfinished-*/shard-*.json"))


def nothing_else(root: Path, built: CorpusArtifact) -> None:
    assert [path.name for path in (root / "corpora" / "c").iterdir()] == [built.folder.name]


class Stopped(Exception):
    """Raised in place of a death."""


@contextmanager
def stopped_at(call: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Let the n-th call that changes the disk's durable state raise; count all calls."""
    made = [0]

    def counting(real: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **named: Any) -> Any:
            made[0] += 1
            if made[0] == call:
                raise Stopped
            return real(*args, **named)

        return called

    with monkeypatch.context() as patch:
        for name in ("fsync", "link", "replace", "rename"):
            patch.setattr(os, name, counting(getattr(os, name)))
        yield made


@pytest.mark.parametrize("kind", KINDS)
def test_a_build_in_shards_that_is_stopped_and_goes_on_is_the_same_to_the_byte(
    tmp_path: Path, kind: str
) -> None:
    whole = build(kind, tmp_path, tmp_path / "whole")
    assert len(list(whole.folder.glob("passages*.arrow"))) >= 2
    nothing_else(tmp_path / "whole", whole)
    root = tmp_path / "broken"

    def stop_later(done: int, total: int | None) -> None:
        if done >= limit and total is None:
            raise Stopped

    kept = []
    for share in (0.45, 0.8):
        limit = share * whole.manifest.counts["passages"]
        with pytest.raises(Stopped):
            build(kind, tmp_path, root, progress=stop_later)
        kept.append(len(shards(root)))
    assert kept[0] > 0
    assert kept[0] < kept[1] or kind == "selected"
    again = build(kind, tmp_path, root)
    assert not again.reused
    same(whole, again)
    nothing_else(root, again)


@pytest.mark.parametrize(
    ("kind", "every"),
    [
        ("jsonl", 4),
        ("selected", 11),
        pytest.param("jsonl", 1, marks=pytest.mark.soak),
        pytest.param("damaged", 1, marks=pytest.mark.soak),
        pytest.param("selected", 1, marks=pytest.mark.soak),
    ],
)
def test_a_build_that_dies_at_any_write_goes_on(
    tmp_path: Path, kind: str, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writes that must last are refused in turn, in one build that is begun again and again."""
    whole = build(kind, tmp_path, tmp_path / "whole")
    with stopped_at(-1, monkeypatch) as counted:
        build(kind, tmp_path, tmp_path / "counted")
    assert counted[0] > 20
    finished = 0
    root = tmp_path / "broken"
    for call in range(1, counted[0] + 1, every):
        try:
            with stopped_at(call, monkeypatch):
                built = build(kind, tmp_path, root)
        except Stopped:
            continue
        finished += 1
        same(whole, built)
        nothing_else(root, built)
        shutil.rmtree(root)
    assert finished > 0


KILLED = """
import sys, time
from pathlib import Path
from tests.corpus.test_resume import build

def slow(done, total):
    print(done, flush=True)
    time.sleep(float(sys.argv[4]))

if __name__ == "__main__":
    build(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), progress=slow)
"""


def kill_at(kind: str, folder: Path, root: Path, moment: int) -> None:
    """Build in a process of its own and kill it once it has told of so many passages."""
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, kind, str(folder), str(root), "0.005"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    while (line := process.stdout.readline()) and int(line) < moment:
        pass
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()


def test_a_build_that_is_killed_goes_on(tmp_path: Path) -> None:
    whole = build("dump", tmp_path, tmp_path / "whole")
    root = tmp_path / "broken"
    kill_at("dump", tmp_path, root, int(whole.manifest.counts["passages"] * 0.7))
    assert shards(root)
    built = build("dump", tmp_path, root)
    same(whole, built)
    nothing_else(root, built)


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["jsonl", "tsv", "dump", "damaged", "selected"])
def test_builds_killed_at_random_moments_go_on(tmp_path: Path, kind: str) -> None:
    rng = random.Random(kind)
    whole = build(kind, tmp_path, tmp_path / "whole")
    n = whole.manifest.counts["passages"]
    for number in range(2):
        root = tmp_path / f"broken-{number}"
        for _ in range(3):
            kill_at(kind, tmp_path, root, rng.randrange(1, n))
        built = build(kind, tmp_path, root)
        same(whole, built)
        nothing_else(root, built)


def stop_in_the_middle(kind: str, folder: Path, root: Path, after: int = 2_000) -> list[str]:
    def stop(done: int, total: int | None) -> None:
        if done >= after:
            raise Stopped

    with pytest.raises(Stopped):
        build(kind, folder, root, progress=stop)
    kept = shards(root)
    assert kept
    return kept


@pytest.mark.parametrize("victim", ["passages.arrow", ".seen-00000.npy", "shard-00000.json"])
def test_a_damaged_shard_is_made_again(
    tmp_path: Path, victim: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole = build("tsv", tmp_path, tmp_path / "whole")
    root = tmp_path / "broken"
    stop_in_the_middle("tsv", tmp_path, root, 3_000)
    path = next(root.rglob(f"unfinished-*/{victim}"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x15
    path.write_bytes(data)
    same(whole, build("tsv", tmp_path, root))
    assert "is damaged and made again" in caplog.text


def test_a_shard_without_its_end_is_made_again(tmp_path: Path) -> None:
    whole = build("tsv", tmp_path, tmp_path / "whole")
    root = tmp_path / "broken"
    stop_in_the_middle("tsv", tmp_path, root, 3_000)
    path = next(root.rglob("unfinished-*/passages-00001.arrow"))
    path.write_bytes(path.read_bytes()[:-700])
    same(whole, build("tsv", tmp_path, root))


def test_over_changed_files_a_build_begins_anew_and_the_old_shards_go(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "root"
    stop_in_the_middle("jsonl", tmp_path, root)
    rows = tmp_path / "rows.jsonl"
    with rows.open("a") as file:
        file.write('{"id": "new", "title": "t", "text": "one more"}\n')
    began: list[int] = []
    built = build("jsonl", tmp_path, root, progress=lambda done, total: began.append(done))
    assert began[0] == 50
    assert open_corpus(built.folder).get(["new"])[0].text == "one more"
    assert "unfinished build of other files, settings or versions" in caplog.text
    nothing_else(root, built)


def test_shards_of_a_living_process_are_left_alone(tmp_path: Path) -> None:
    root = tmp_path / "root"
    kept = stop_in_the_middle("jsonl", tmp_path, root)
    folder = next(root.rglob("unfinished-*"))
    with held_folder(folder) as held:
        assert held
        built = build("jsonl", tmp_path, root)
        assert shards(root) == kept
    again = build("jsonl", tmp_path, root)
    assert again.reused
    same(built, again)
    assert shards(root) == []


def test_finished_rows_and_pages_are_not_parsed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = {"rows": 0, "blocks": 0}
    json_row, judge = files.json_row, dump_blocks._judge

    def row(line: str) -> Any:
        parsed["rows"] += 1
        return json_row(line)

    def block(*given: Any, **named: Any) -> Any:
        parsed["blocks"] += 1
        return judge(*given, **named)

    monkeypatch.setattr(files, "json_row", row)
    monkeypatch.setattr(dump_blocks, "_judge", block)
    for kind, what in (("jsonl", "rows"), ("dump", "blocks")):
        build(kind, tmp_path, tmp_path / "whole")
        whole, parsed[what] = parsed[what], 0
        stop_in_the_middle(kind, tmp_path, tmp_path / "broken", 3_000)
        parsed[what] = 0
        build(kind, tmp_path, tmp_path / "broken")
        assert 0 < parsed[what] <= 0.7 * whole


@pytest.mark.soak
def test_several_processes_go_on_where_one_stopped(tmp_path: Path) -> None:
    whole = build("dump", tmp_path, tmp_path / "whole")
    stop_in_the_middle("dump", tmp_path, tmp_path / "broken")
    source = DumpSource(
        tmp_path / "dump", options=WikiOptions(), cutting=Cutting(n_words=4), processes=2
    )
    began: list[int] = []
    built = build_corpus_from(
        source,
        tmp_path / "broken",
        name="c",
        shard_size=SHARD,
        progress=lambda done, total: began.append(done),
    )
    assert began[0] > 1_000
    same(whole, built)


def test_shards_do_not_change_the_fingerprint_and_small_corpora_are_one_file(
    tmp_path: Path,
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl")
    cut = build("jsonl", tmp_path, tmp_path / "cut")
    one = build_corpus(rows, tmp_path / "one", name="c")
    assert one.folder.name == cut.folder.name
    assert one.manifest.digests == cut.manifest.digests
    names = [path.name for path in sorted(one.folder.iterdir())]
    assert names == [
        "id-hashes.npy", "id-rows.npy", "manifest.json", "passages.arrow", "problems.txt",
    ]  # fmt: skip
    stores = [open_corpus(built.folder) for built in (one, cut)]
    passages = [[p for batch in store.iter_passages() for p in batch] for store in stores]
    assert passages[0] == passages[1]
    some = [passage.id for passage in passages[0][::37]]
    assert stores[0].get(some) == stores[1].get(some)


def test_one_id_in_two_files_of_a_store_is_refused(tmp_path: Path) -> None:
    with StoreWriter(tmp_path) as writer:
        for number in (0, 1, 2, 1):
            writer.add(Passage(f"i{number}", "t", "x"))
            if number == 2:
                writer.end_file()
        with pytest.raises(InputError, match=r"passages 1 and 3 .* 'i1'"):
            writer.finish()


@pytest.mark.parametrize("kind", ["folder", "hub"])
def test_folders_and_data_sets_go_on_too(tmp_path: Path, kind: str) -> None:
    def source() -> RowSource:
        if kind == "folder":
            return RowSource(read_folder(tmp_path / "docs"), chunk_words=3, about={})
        dataset = HubDataset(str(tmp_path / "docs"))
        return RowSource(read_dataset(dataset), about={})

    (tmp_path / "docs").mkdir()
    if kind == "folder":
        for number in range(400):
            (tmp_path / "docs" / f"d{number:03d}.txt").write_text(f"a b c {number} e f g h i")
    else:
        pytest.importorskip("datasets")
        write_rows(tmp_path / "docs" / "rows.jsonl")
        text = (tmp_path / "docs" / "rows.jsonl").read_text().replace("{broken\n\n", "")
        (tmp_path / "docs" / "rows.jsonl").write_text(text)
    whole = build_corpus_from(source(), tmp_path / "whole", name="c", shard_size=300)

    def stop(done: int, total: int | None) -> None:
        if done == (1_000 if kind == "folder" else 3_000):
            raise Stopped

    root = tmp_path / "broken"
    with pytest.raises(Stopped):
        build_corpus_from(source(), root, name="c", shard_size=300, progress=stop)
    assert shards(root)
    same(whole, build_corpus_from(source(), root, name="c", shard_size=300))


def test_a_full_disk_keeps_the_finished_shards(tmp_path: Path) -> None:
    whole = build("jsonl", tmp_path, tmp_path / "whole")
    size = sum(path.stat().st_size for path in whole.folder.iterdir())
    with small_disk(tmp_path / "disk", kib=size * 7 // 10 // 1024) as disk:
        with pytest.raises(StorageError, match="bytes free"):
            build("jsonl", tmp_path, disk)
        kept = shards(disk)
        assert kept
        assert not list(disk.rglob(".tmp-*"))
        shutil.copytree(disk, tmp_path / "larger")
    assert shards(tmp_path / "larger") == kept
    began: list[int] = []
    built = build("jsonl", tmp_path, tmp_path / "larger", progress=lambda n, _: began.append(n))
    assert began[0] >= 1_024
    same(whole, built)
