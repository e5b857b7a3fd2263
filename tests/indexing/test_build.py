"""Indexes are built once, continue after a stop without encoding anything twice, and are refused
beside another corpus or encoder."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

import pytest

from rag_frozen.artifacts import load_manifest, verify
from rag_frozen.errors import ArtifactMismatchError, ArtifactMissingError, RecipeError
from rag_frozen.indexing import build as building
from rag_frozen.indexing import encoders, opening, parts
from rag_frozen.recipes.index import IndexRecipe
from tests.contracts.test_retriever import HashEncoder


class Counting(HashEncoder):
    """Counts the passages that it encodes."""

    encoded = 0

    def encode_passages(self, passages):
        Counting.encoded += len(passages)
        return super().encode_passages(passages)


@pytest.fixture(autouse=True)
def encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    Counting.encoded = 0
    monkeypatch.setattr(encoders, "make_encoder", lambda settings, device=None: Counting())


def recipe(folder: Path, **changes: object) -> IndexRecipe:
    rows = (
        {"id": f"p{n}", "title": f"T{n}", "text": f"passage {n} of the river"} for n in range(40)
    )
    path = folder / "rows.jsonl"
    if not path.exists():
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {
        "kind": "index",
        "name": "tiny",
        "corpus": {"kind": "files", "path": path},
        "bm25": {"kind": "tantivy"},
        "dense": {
            "kind": "flat",
            "encoder": {"kind": "sentence-transformers", "model": "any"},
            "shard_size": 16,
        },
    }
    return IndexRecipe.model_validate({**values, **changes})


def hashes(built: parts.BuiltIndex) -> dict[str, object]:
    return {
        part.role: load_manifest(part.folder).files for part in built.parts if part.role != "bm25"
    }


def test_a_finished_index_is_not_built_again(tmp_path: Path):
    first = building.build_index(recipe(tmp_path), root=tmp_path)
    assert Counting.encoded == 40
    again = building.build_index(recipe(tmp_path), root=tmp_path)
    assert Counting.encoded == 40
    assert [part.folder for part in again.parts] == [part.folder for part in first.parts]
    assert all(part.reused for part in again.parts)
    for part in again.parts:
        verify(part.folder)


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_build_that_dies_while_its_shards_are_placed_loses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
):
    whole = building.build_index(recipe(tmp_path), root=tmp_path / "whole")
    Counting.encoded = 0
    share, placed = building.link_or_copy, []

    def dies(finished: Path, place: Path) -> None:
        share(finished, place)
        placed.append(place)
        if len(placed) == after:
            raise KeyboardInterrupt

    monkeypatch.setattr(building, "link_or_copy", dies)
    with pytest.raises(KeyboardInterrupt):
        building.build_index(recipe(tmp_path), root=tmp_path / "broken")
    assert Counting.encoded == 40
    monkeypatch.setattr(building, "link_or_copy", share)
    resumed = building.build_index(recipe(tmp_path), root=tmp_path / "broken")
    assert Counting.encoded == 40
    assert hashes(resumed) == hashes(whole)
    left = [path.name for path in resumed.part("dense").folder.parent.iterdir()]
    assert left == [resumed.part("dense").fingerprint]


def test_shards_are_copied_where_links_are_not_possible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refused(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    whole = building.build_index(recipe(tmp_path), root=tmp_path / "whole")
    monkeypatch.setattr(os, "link", refused)
    copied = building.build_index(recipe(tmp_path), root=tmp_path / "copied")
    assert hashes(copied) == hashes(whole)


def test_an_index_of_another_encoder_or_corpus_is_refused(tmp_path: Path):
    built = building.build_index(recipe(tmp_path), root=tmp_path)
    other = Counting()
    other.digest = "f" * 64
    with pytest.raises(ArtifactMismatchError, match="built with encoder"):
        opening.open_dense(built, other)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "rows.jsonl").write_text('{"id": "x", "title": "", "text": "alone"}\n')
    longer = building.build_index(recipe(tmp_path / "more"), root=tmp_path / "more")
    mixed = parts.BuiltIndex("tiny", (longer.part("corpus"), built.part("bm25")))
    with pytest.raises(ArtifactMismatchError, match="is over corpus"):
        opening.open_bm25(mixed)


def test_what_is_missing_names_the_command_that_builds_it(tmp_path: Path):
    with pytest.raises(ArtifactMissingError, match="rag-frozen index build tiny"):
        parts.index_parts(recipe(tmp_path), root=tmp_path)
    built = building.build_index(recipe(tmp_path, dense=None), root=tmp_path)
    with pytest.raises(ArtifactMissingError, match="dense index of tiny is not built"):
        parts.index_parts(recipe(tmp_path), root=tmp_path)
    with pytest.raises(RecipeError, match="has no dense part"):
        built.part("dense")


def test_an_index_of_several_segments_is_told_with_what_would_help(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    chance = random.Random(0)
    with (tmp_path / "rows.jsonl").open("w") as file:
        for number in range(900):  # each of its words stands once
            text = " ".join(f"{chance.randrange(10**9):x}" for _ in range(100))
            file.write(json.dumps({"id": str(number), "title": "T", "text": text}) + "\n")
    little = recipe(tmp_path, dense=None, bm25={"kind": "tantivy", "heap_mb": 16})
    built = building.build_index(little, root=tmp_path)
    segments = built.part("bm25").segments
    assert segments is not None
    assert segments > 1
    assert f"searched as {segments} segments" in caplog.text
    assert "--set bm25.heap_mb=64" in caplog.text
    shutil.rmtree(built.part("bm25").folder)
    more = recipe(tmp_path, dense=None, bm25={"kind": "tantivy", "heap_mb": 64})
    again = building.build_index(more, root=tmp_path)
    assert again.part("bm25").folder == built.part("bm25").folder
    assert again.part("bm25").segments == 1
