"""Corpus files at addresses of fsspec give what files on a disk give."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rag_frozen.artifacts import load_manifest
from rag_frozen.corpus.build import build_corpus_from
from rag_frozen.corpus.remote import source_path
from rag_frozen.errors import InputError, MissingPackageError, RecipeError
from rag_frozen.indexing.sampling import sample_corpus
from rag_frozen.indexing.sources import corpus_source
from rag_frozen.recipes.index import IndexRecipe
from rag_frozen.recipes.loading import load_recipe
from tests.corpus.mediawiki.dumps import MadePage, dump_text, multistream

upath = pytest.importorskip("upath", reason="pip install 'rag-frozen[remote]'")

ROWS = "".join(
    json.dumps({"id": f"p{n}", "title": "T", "text": f"passage {n} of the river"}) + "\n"
    for n in range(40)
)
PAGES = [MadePage(f"Page {n}", f"Page {n} is about rivers and kings.") for n in range(9)]


@pytest.fixture
def storage() -> Iterator[object]:
    """fsspec's storage in memory, empty before and after."""
    place = upath.UPath("memory://rag-frozen-tests")
    place.mkdir(parents=True, exist_ok=True)
    yield place
    place.fs.rm(place.path, recursive=True)


def recipe(kind: str, path: str) -> IndexRecipe:
    corpus = {"kind": kind, "path": path, **({"min_words": 2} if kind == "mediawiki" else {})}
    return IndexRecipe.model_validate({"kind": "index", "name": "tiny", "corpus": corpus})


def built(kind: str, path: str, root: Path) -> dict[str, object]:
    artifact = build_corpus_from(corpus_source(recipe(kind, path)), root, name="tiny")
    manifest = load_manifest(artifact.folder)
    return {"fingerprint": manifest.fingerprint, "counts": manifest.counts}


@pytest.mark.parametrize(
    ("kind", "name", "content"),
    [
        ("files", "rows.jsonl", ROWS.encode()),
        ("files", "rows.jsonl.gz", gzip.compress(ROWS.encode(), mtime=0)),
        ("mediawiki", "dump.xml", dump_text(PAGES).encode()),
        ("mediawiki", "dump.xml.bz2", multistream(PAGES)),
        ("mediawiki", "dump.xml.gz", gzip.compress(dump_text(PAGES).encode(), mtime=0)),
    ],
)
def test_a_file_or_folder_at_an_address_is_the_same_corpus(
    tmp_path: Path, storage, kind: str, name: str, content: bytes
) -> None:
    if kind == "mediawiki":
        pytest.importorskip("mwxml", reason="pip install 'rag-frozen[wiki]'")
    (tmp_path / name).write_bytes(content)
    (storage / name).write_bytes(content)
    here = built(kind, str(tmp_path / name), tmp_path / "here")
    assert here["counts"]["passages"] in (9, 40)  # type: ignore[index]
    assert built(kind, str(storage / name), tmp_path / "there") == here
    assert built(kind, str(storage), tmp_path / "folder") == here


def test_a_build_from_an_address_can_be_planned(tmp_path: Path, storage) -> None:
    (storage / "rows.jsonl").write_bytes(ROWS.encode())
    sample = sample_corpus(recipe("files", str(storage / "rows.jsonl")), n=100, work=tmp_path)
    assert len(sample.passages) == 40


def test_what_an_address_lacks_is_told(monkeypatch: pytest.MonkeyPatch, storage) -> None:
    with pytest.raises(InputError, match="There is no file or folder memory://"):
        corpus_source(recipe("files", str(storage / "none.jsonl")))
    with pytest.raises(InputError, match="nowhere://a/b cannot be read"):
        source_path("nowhere://a/b")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(MissingPackageError, match="s3fs"):
        source_path("s3://bucket/rows.jsonl")
    monkeypatch.setitem(sys.modules, "upath", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'rag-frozen\[remote\]'"):
        source_path("s3://bucket/rows.jsonl")


def test_documents_at_an_address_are_refused_by_the_recipe() -> None:
    with pytest.raises(RecipeError, match="read from disks alone"):
        load_recipe(
            "folder-minilm", IndexRecipe, folder="indexes", overrides=["corpus.path=s3://b/docs"]
        )
