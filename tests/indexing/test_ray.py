"""A Ray cluster gives what this machine gives, in order, also where its workers die."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from rag_frozen.artifacts import load_manifest
from rag_frozen.errors import ArtifactMismatchError, DataFormatError, InputError
from rag_frozen.indexing import executors
from rag_frozen.indexing.build import build_index
from rag_frozen.indexing.executors import parts_on
from rag_frozen.indexing.executors_ray import RayCluster
from rag_frozen.indexing.parts import BuiltIndex
from rag_frozen.recipes.index import IndexRecipe
from rag_frozen.retrieval import dense_parts
from rag_frozen.retrieval.dense_ivf import build_ivf
from rag_frozen.retrieval.dense_parts import MissingPart
from tests.corpus.mediawiki.dumps import MadePage, multistream
from tests.retrieval.clustered import clustered, store
from tests.tiny import save_bert

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'rag-frozen[ray]'")
pytest.importorskip("mwxml", reason="pip install 'rag-frozen[wiki]'")


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """One machine of two cores, joined by this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(
            address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
            object_store_memory=100 * 2**20,
        )  # fmt: skip
    with RayCluster() as joined:
        yield joined
    assert ray.is_initialized()  # a Ray that others joined is left to them
    ray.shutdown()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As a worker of one core has: products of other threads may round differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def squared(number: int) -> int:
    if number < 0:
        raise InputError(f"{number} is negative")
    return number * number


def dies_once(number: int, folder: Path) -> int:
    mark = folder / "died"
    if number == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def pages(count: int) -> Iterator[MadePage]:
    for number in range(count):
        words = " ".join(f"w{number}x{place}" for place in range(30))
        yield MadePage(f"Page {number}", words)
        yield MadePage(f"Alias {number}", redirect=f"Page {number}")


def recipe(
    folder: Path, *, n_pages: int = 120, shard_size: int = 32, **changes: object
) -> IndexRecipe:
    dump = folder / "dump.xml.bz2"
    if not dump.exists():
        dump.write_bytes(multistream(pages(n_pages), each=50))
        save_bert(folder / "questions", kind="DPRQuestionEncoder", seed=1)
        save_bert(folder / "passages", kind="DPRContextEncoder", seed=2)
    encoder = {
        "kind": "dpr",
        "question_model": str(folder / "questions"),
        "passage_model": str(folder / "passages"),
    }
    values = {
        "kind": "index",
        "name": "tiny",
        "corpus": {"kind": "mediawiki", "path": dump, "processes": 1, "min_words": 5},
        "dense": {"kind": "exact-torch", "encoder": encoder, "shard_size": shard_size},
    }
    return IndexRecipe.model_validate({**values, **changes})


def same(one: BuiltIndex, other: BuiltIndex) -> None:
    """Equal fingerprints, and every file byte for byte."""
    for role in ("corpus", "dense"):
        first, second = one.part(role), other.part(role)
        assert first.fingerprint == second.fingerprint
        manifests = load_manifest(first.folder), load_manifest(second.folder)
        assert manifests[0].files == manifests[1].files
        assert manifests[0].counts == manifests[1].counts
        for name in manifests[0].files:
            assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes()


def test_results_come_in_order_with_few_in_flight(cluster: RayCluster) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(30):
            taken.append(number)
            yield number

    found: list[int] = []
    for result in RayCluster(tasks_in_flight=3).map(squared, items()):
        found.append(result)
        assert len(taken) <= len(found) + 3
    assert found == [number * number for number in range(30)]


def test_an_error_on_a_machine_is_the_one_raised_here(cluster: RayCluster) -> None:
    with pytest.raises(InputError, match=r"^-1 is negative$") as raised:
        list(cluster.map(squared, [1, -1, 2]))
    assert type(raised.value) is InputError


def test_a_task_whose_worker_is_killed_is_begun_again(cluster: RayCluster, tmp_path: Path) -> None:
    assert list(cluster.map(partial(dies_once, folder=tmp_path), range(8))) == list(range(8))
    assert (tmp_path / "died").exists()


def test_another_version_on_a_machine_is_told(
    cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag_frozen.indexing.executors_ray.__version__", "9.9")
    with pytest.raises(ArtifactMismatchError, match=r"this one 9\.9"):
        list(cluster.map(squared, [1]))


def test_a_task_that_no_machine_can_run_is_refused(cluster: RayCluster) -> None:
    with pytest.raises(InputError, match="asks for 64 cores"):
        list(RayCluster(cpus_per_task=64).map(squared, [1]))
    with pytest.raises(InputError, match="1000 GPUs"):
        list(RayCluster(gpus_per_task=1000).map(squared, [1], device=True))


def test_a_wiki_is_read_and_encoded_on_a_cluster_as_it_is_here(
    cluster: RayCluster, tmp_path: Path, one_thread: None
) -> None:
    here = build_index(recipe(tmp_path), root=tmp_path / "here")
    told: list[tuple[str, int]] = []
    there = build_index(
        recipe(tmp_path, executor="ray"),
        root=tmp_path / "there",
        report=lambda what, done, _: told.append((what, done)),
    )
    assert here.part("dense").n_passages == 120
    same(here, there)
    assert [done for what, done in told if what == "dense index"][-1] == 120
    again = build_index(recipe(tmp_path), root=tmp_path / "there")
    assert all(part.reused for part in again.parts)


@pytest.mark.parametrize("kind", ["scalar-int8", "ivf-pq-fastscan"])
def test_a_search_is_coded_in_parts_on_a_cluster_as_it_is_here(
    cluster: RayCluster,
    tmp_path: Path,
    one_thread: None,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    monkeypatch.setattr(dense_parts, "PART_SIZE", 50)
    monkeypatch.setattr(executors, "write_part", refused)  # of this process alone
    plain = recipe(tmp_path).dense
    assert plain is not None
    dense = {
        "kind": kind, "encoder": plain.encoder, "shard_size": 32,
        "recall": 0.5, "tuning": {"n": 16},
    }  # fmt: skip
    built = [
        build_index(recipe(tmp_path, dense=dense, executor=executor), root=tmp_path / executor)
        for executor in ("local", "ray")
    ]
    same(*built)
    assert "index.faiss" in load_manifest(built[0].part("dense").folder).files


def dies_before_a_part(part: MissingPart, work: Callable[[MissingPart], bool], died: Path) -> bool:
    if part.start == 200 and not died.exists():
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return work(part)


@dataclass(frozen=True)
class Deadly:
    """A cluster that loses the worker of one part."""

    cluster: RayCluster
    died: Path

    def map(
        self, function: Callable[[Any], Any], items: Iterable[Any], *, device: bool = False
    ) -> Iterator[Any]:
        deadly = partial(dies_before_a_part, work=function, died=self.died)
        return self.cluster.map(deadly, items, device=device)


def test_a_part_of_a_search_whose_worker_is_killed_is_made_again(
    cluster: RayCluster, tmp_path: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dense_parts, "PART_SIZE", 100)
    build_ivf(tmp_path / "here", store(tmp_path / "here", clustered(600)), lists=8)
    vectors = store(tmp_path / "there", clustered(600))
    made = parts_on(Deadly(cluster, tmp_path / "died"), tmp_path / "there")
    build_ivf(tmp_path / "there", vectors, lists=8, elsewhere=made)
    assert (tmp_path / "died").exists()
    files = [
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("here", "there")
    ]
    assert files[0] == files[1]


def refused(*_: object) -> None:
    raise AssertionError("a worker did not see the folder")


def test_damage_of_a_dump_is_told_as_it_is_here(cluster: RayCluster, tmp_path: Path) -> None:
    wanted = recipe(tmp_path, dense=None)
    path = tmp_path / "dump.xml.bz2"
    path.write_bytes(path.read_bytes()[:-60])
    said = []
    for executor in ("local", "ray"):
        changed = wanted.model_copy(
            update={"executor": recipe(tmp_path, executor=executor).executor}
        )
        with pytest.raises(DataFormatError) as raised:
            build_index(changed, root=tmp_path / executor)
        said.append(str(raised.value))
    assert said[0] == said[1]
    assert "breaks off" in said[0]
