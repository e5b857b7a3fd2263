from __future__ import annotations

from pathlib import Path

import pytest

from rag_frozen.artifacts import (
    MANIFEST_NAME,
    artifact_folder,
    artifact_root,
    list_artifacts,
    name_folder,
)
from rag_frozen.errors import InputError


def test_an_explicit_root_wins_over_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAG_FROZEN_HOME", str(tmp_path / "home"))
    assert artifact_root(tmp_path / "explicit") == tmp_path / "explicit"
    assert artifact_root() == tmp_path / "home"


def test_without_either_the_root_is_the_users_cache_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAG_FROZEN_HOME", "")
    root = artifact_root()
    assert root.name == "rag-frozen"
    assert root.is_relative_to(tmp_path)


def test_the_root_is_absolute_and_knows_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert artifact_root("here/../there") == tmp_path / "there"
    assert artifact_root("~/models") == tmp_path / "models"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", ".hidden", "a b", "x" * 200, "a\n"])
def test_a_name_that_is_not_one_folder_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="cannot name a corpus"):
        name_folder("/data", "corpus", name=name)


def test_an_unknown_kind_and_a_foreign_fingerprint_are_refused() -> None:
    with pytest.raises(InputError, match="no kind of artifact"):
        name_folder("/data", "book", name="a")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no fingerprint"):
        artifact_folder("/data", "corpus", name="a", fingerprint="../other")


def test_only_finished_artifacts_are_listed(tmp_path: Path) -> None:
    assert list_artifacts(tmp_path, "corpus") == ()
    finished = []
    for name, build in [("b", "2" * 16), ("a", "1" * 16), ("a", "0" * 16)]:
        folder = artifact_folder(tmp_path, "corpus", name=name, fingerprint=build)
        folder.mkdir(parents=True)
        (folder / MANIFEST_NAME).write_text("{}")
        finished.append(folder)
    (name_folder(tmp_path, "corpus", name="a") / "unfinished").mkdir()
    hidden = name_folder(tmp_path, "corpus", name="a") / ".tmp-1"
    hidden.mkdir()
    (hidden / MANIFEST_NAME).write_text("{}")
    assert list_artifacts(tmp_path, "corpus") == tuple(sorted(finished))
    assert list_artifacts(tmp_path, "corpus", name="b") == (finished[0],)
    assert list_artifacts(tmp_path, "index") == ()
