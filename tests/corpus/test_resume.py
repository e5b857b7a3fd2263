"""A corpus build that is stopped at any moment goes on, and ends in the same bytes."""

from __future__ import annotations

import errno
import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rag_frozen.artifacts import Manifest, verify
from rag_frozen.corpus import build as building
from rag_frozen.corpus import open_corpus
from rag_frozen.corpus.build import CorpusArtifact, build_corpus_from
from rag_frozen.corpus.folders import read_folder
from rag_frozen.corpus.hub import HubDataset, read_dataset
from rag_frozen.corpus.mediawiki.articles import Cutting
from rag_frozen.corpus.mediawiki.options import WikiOptions
from rag_frozen.corpus.mediawiki.reader import DumpSource
from rag_frozen.corpus.mediawiki.selection import Selection
from rag_frozen.corpus.readers import read_passages
from rag_frozen.corpus.sources import CorpusSource, RowSource
from rag_frozen.corpus.unfinished import UnfinishedCorpus
from rag_frozen.errors import StorageError

from ..artifacts.disks import small_disk
from .mediawiki.dumps import MadePage, dump_text, multistream

pytest.importorskip("mwxml")
pytest.importorskip("mwparserfromhell")

ROWS = 3_600
SHARD = 1_100
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
    for number in range(700):
        words = " ".join(f"w{number}x{place}" for place in range(25 + number % 30))
        yield MadePage(f"Page {number}", f"[[Page {number % 60}]] [[Alias {number // 2}]] {words}")
        yield MadePage(f"Alias {number}", redirect=f"Page {number}")
        if number % 50 == 1:
            yield MadePage(f"Talk:Page {number}", "talk", ns=1)
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
        cutting=Cutting(n_words=10),
        damaged="keep" if kind == "damaged" else "stop",
        selection=Selection(share=0.6) if kind == "selected" else None,
    )


def build(kind: str, folder: Path, root: Path, **settings: Any) -> CorpusArtifact:
    source = make_source(kind, folder)
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
    files = [path.name for path in sorted(whole.folder.glob("passages*.arrow"))]
    assert files[:2] == ["passages-00001.arrow", "passages-00002.arrow"] or kind == "selected"
    nothing_else(tmp_path / "whole", whole)
    root = tmp_path / "broken"

    def stop_later(done: int, total: int | None) -> None:
        if done >= limit and total is None:
            raise Stopped

    kept = []
    for limit in (1_500, 3_000):
        with pytest.raises(Stopped):
            build(kind, tmp_path, root, progress=stop_later)
        kept.append(len(shards(root)))
    assert 0 < kept[0]
    assert kept[0] < kept[1] or kind == "selected"
    again = build(kind, tmp_path, root)
    assert not again.reused
    same(whole, again)
    nothing_else(root, again)
