from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_frozen.artifacts import (
    FileRecord,
    Hardware,
    Manifest,
    ModelRecord,
    find_artifact,
    list_artifacts,
    load_manifest,
    name_folder,
    verify,
    write_artifact,
)
from rag_frozen.artifacts.layout import ArtifactKind
from rag_frozen.errors import ArtifactDamagedError, ArtifactMissingError

from .strategies import recipes

words = st.text(st.characters(codec="utf-8"), max_size=8)
manifests = st.builds(
    Manifest,
    kind=st.sampled_from(["corpus", "index", "head", "model", "run"]),
    schema_version=st.just(1),
    name=words,
    fingerprint=st.text("0123456789abcdef", min_size=16, max_size=16),
    recipe=recipes,
    inputs=st.dictionaries(words, words, max_size=3),
    models=st.dictionaries(words, st.builds(ModelRecord, name=words, digest=words), max_size=3),
    files=st.dictionaries(
        st.text("abc", min_size=1, max_size=5),
        st.builds(FileRecord, size=st.integers(0), sha256=st.text("0a", min_size=64, max_size=64)),
        max_size=3,
    ),
    counts=st.dictionaries(words, st.integers(), max_size=3),
    digests=st.dictionaries(words, words, max_size=3),
    seed=st.none() | st.integers(),
    versions=st.dictionaries(words, words, max_size=3),
    commit=st.none() | words,
    hardware=st.builds(
        Hardware,
        cpu=words,
        cores=st.integers(1, 99),
        memory_bytes=st.none() | st.integers(0),
        accelerator=st.none() | words,
    ),
    created=st.datetimes(timezones=st.just(UTC) | st.just(timezone(timedelta(hours=5)))),
)


@settings(max_examples=50)
@given(manifests)
def test_a_manifest_loads_back_equal(manifest: Manifest) -> None:
    assert Manifest.model_validate(json.loads(manifest.to_json())) == manifest


def build(root: Path, *, kind: ArtifactKind = "index", name: str = "bm25", k: int = 1) -> Path:
    parent = name_folder(root, kind, name=name)
    with write_artifact(
        parent, kind=kind, name=name, recipe={"k": k}, counts={"rows": 3}, by_fingerprint=True
    ) as draft:
        (draft / "a.bin").write_bytes(b"0123456789")
        (draft.folder / "sub").mkdir()
        (draft.folder / "sub" / "b.bin").write_bytes(b"x" * 100)
    return draft.target


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_written_manifest_says_what_was_written(tmp_path: Path) -> None:
    before = datetime.now(UTC)
    folder = build(tmp_path)
    manifest = verify(folder, kind="index")
    assert folder.name == manifest.fingerprint
    assert manifest.files["sub/b.bin"].size == 100
    assert set(manifest.files) == {"a.bin", "sub/b.bin"}
    assert manifest.counts == {"rows": 3}
    assert "python" in manifest.versions
    assert manifest.versions["numpy"] == __import__("numpy").__version__
    assert manifest.hardware.cores >= 1
    assert manifest.hardware.cpu
    assert before <= manifest.created <= datetime.now(UTC)
    assert manifest.created.utcoffset() == timedelta(0)


def test_verify_tells_its_progress_in_bytes(tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    verify(build(tmp_path), progress=lambda done, total: told.append((done, total)))
    assert told == [(10, 110), (110, 110)]


def test_a_missing_folder_says_what_builds_it(tmp_path: Path) -> None:
    with pytest.raises(ArtifactMissingError, match="rag-frozen index build"):
        load_manifest(tmp_path / "nothing", kind="index")
    with pytest.raises(ArtifactMissingError, match="no finished artifact"):
        load_manifest(tmp_path)


@pytest.mark.parametrize("length", [0, 1, 200])
def test_a_truncated_manifest_is_damage(tmp_path: Path, length: int) -> None:
    folder = build(tmp_path)
    with (folder / "manifest.json").open("r+b") as handle:
        handle.truncate(length)
    with pytest.raises(ArtifactDamagedError, match="cut off"):
        load_manifest(folder)


@pytest.mark.parametrize("text", ["[]", "{}", '{"schema_version": "one"}', "3"])
def test_a_foreign_manifest_is_damage(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ArtifactDamagedError, match="not one of rag-frozen's"):
        load_manifest(tmp_path)


def test_a_manifest_that_is_no_text_is_damage(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ArtifactDamagedError, match="utf-8"):
        load_manifest(tmp_path)


def test_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    folder = build(tmp_path)
    with pytest.raises(
        ArtifactDamagedError, match="is of kind index, but one of kind corpus is needed"
    ):
        load_manifest(folder, kind="corpus")


def test_the_head_of_a_prompt_is_called_a_prompt(tmp_path: Path) -> None:
    with pytest.raises(ArtifactMissingError, match=r"no prompt at .*rag-frozen train RECIPE"):
        load_manifest(tmp_path / "none", kind="head")


def test_an_older_schema_asks_for_a_new_build_and_a_newer_one_for_an_upgrade(
    tmp_path: Path,
) -> None:
    folder = build(tmp_path)
    edit(folder, schema_version=0, field_of_old="x")
    with pytest.raises(ArtifactDamagedError, match=r"older schema version 0.*index build"):
        load_manifest(folder)
    edit(folder, schema_version=9)
    with pytest.raises(ArtifactDamagedError, match="Upgrade rag-frozen"):
        load_manifest(folder)


def test_an_unknown_field_is_damage_and_is_named(tmp_path: Path) -> None:
    folder = build(tmp_path)
    edit(folder, surprise=1)
    with pytest.raises(ArtifactDamagedError, match="surprise"):
        load_manifest(folder)


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "a/../../b", "a\\b"])
def test_files_outside_the_folder_are_refused(tmp_path: Path, path: str) -> None:
    folder = build(tmp_path)
    edit(folder, files={path: {"size": 1, "sha256": "0" * 64}})
    with pytest.raises(ArtifactDamagedError, match="does not lie in"):
        load_manifest(folder)


def test_sizes_are_checked_at_load(tmp_path: Path) -> None:
    folder = build(tmp_path)
    os.truncate(folder / "a.bin", 9)
    (folder / "sub" / "b.bin").unlink()
    with pytest.raises(ArtifactDamagedError) as caught:
        load_manifest(folder)
    assert "a.bin has 9 bytes, recorded are 10" in str(caught.value)
    assert "b.bin is missing" in str(caught.value)


def test_only_verify_sees_a_changed_byte(tmp_path: Path) -> None:
    folder = build(tmp_path)
    (folder / "a.bin").write_bytes(b"0123456780")
    assert load_manifest(folder).counts == {"rows": 3}
    with pytest.raises(ArtifactDamagedError, match=r"a\.bin has SHA-256"):
        verify(folder)


def test_verify_sees_a_changed_recipe(tmp_path: Path) -> None:
    folder = build(tmp_path)
    edit(folder, recipe={"k": 2})
    with pytest.raises(ArtifactDamagedError, match="do not give its fingerprint"):
        verify(folder)


def test_the_newest_build_is_found(tmp_path: Path) -> None:
    first = build(tmp_path, k=1)
    second = build(tmp_path, k=2)
    assert set(list_artifacts(tmp_path, "index")) == {first, second}
    assert find_artifact(tmp_path, "index", name="bm25") == second
    assert find_artifact(tmp_path, "index", name="bm25", fingerprint=first.name) == first
    with pytest.raises(ArtifactMissingError, match="no index bm25 \\(ffff"):
        find_artifact(tmp_path, "index", name="bm25", fingerprint="f" * 16)
