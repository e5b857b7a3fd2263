"""Who builds is named in the recipe, belongs to no fingerprint, and costs nothing until it runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag_frozen.errors import (
    ArtifactMismatchError,
    InputError,
    MissingPackageError,
    RecipeError,
    StorageError,
)
from rag_frozen.indexing import executors
from rag_frozen.indexing.build import build_index
from rag_frozen.indexing.executors import open_executor, parts_on, shards_on
from rag_frozen.indexing.executors_ray import RayCluster
from rag_frozen.recipes.index import (
    IndexRecipe,
    LocalExecutor,
    RayExecutor,
    SentenceEncoderSettings,
)
from rag_frozen.recipes.loading import load_recipe
from rag_frozen.retrieval import dense_parts
from rag_frozen.retrieval.dense_ivf import build_ivf
from rag_frozen.retrieval.dense_shards import MissingShard, encode_shards
from rag_frozen.retrieval.dense_vectors import StoredVectors, VectorType
from rag_frozen.types import Passage
from tests.contracts.test_retriever import HashEncoder
from tests.retrieval.clustered import clustered, store

PASSAGES = [Passage(f"p{n}", "T", f"passage {n} of the river") for n in range(40)]
ANY = SentenceEncoderSettings(kind="sentence-transformers", model="any")


def load(*overrides: str) -> IndexRecipe:
    return load_recipe("pocket", IndexRecipe, folder="indexes", overrides=overrides)


def make(settings: object) -> HashEncoder:
    return HashEncoder()


class Here:
    """Runs at once what would run elsewhere; ``blind`` workers do not see the shards' folder."""

    def __init__(self, *, blind: bool = False, idle: bool = False) -> None:
        self.blind = blind
        self.idle = idle

    def map(
        self, function: Callable[[Any], Any], items: Iterable[Any], *, device: bool = False
    ) -> Iterator[Any]:
        assert device
        mark = function.keywords["mark"]  # type: ignore[attr-defined]
        assert mark.exists()
        for item in items:
            if self.blind:
                mark.unlink(missing_ok=True)
            if self.idle:
                yield item.path, len(item.passages), None
            else:
                yield function(item)


def test_an_executor_is_named_by_its_kind_or_with_settings() -> None:
    assert load().executor == LocalExecutor(kind="local")
    assert load("executor=local").executor == LocalExecutor(kind="local")
    assert load("executor=ray").executor == RayExecutor(kind="ray")
    named = load("executor={kind: ray, address: auto, cpus_per_task: 2, tasks_in_flight: 9}")
    assert named.executor == RayExecutor(
        kind="ray", address="auto", cpus_per_task=2, tasks_in_flight=9
    )
    with pytest.raises(RecipeError, match="executor"):
        load("executor=spark")
    with pytest.raises(RecipeError, match="did you mean address"):
        load("executor={kind: ray, adress: auto}")


def test_artifacts_are_not_written_to_an_address(tmp_path: Path) -> None:
    for root in (Path("s3://bucket/rag"), tmp_path / "gs://bucket"):
        with pytest.raises(InputError, match="Artifacts are written to disks"):
            build_index(load(), root=root)
    assert list(tmp_path.iterdir()) == []


def test_this_machine_needs_no_executor_and_a_cluster_connects_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with open_executor(LocalExecutor(kind="local")) as executor:
        assert executor is None
    with open_executor(RayExecutor(kind="ray", address="ray://nobody:1")) as cluster:
        assert isinstance(cluster, RayCluster)
        with pytest.raises(MissingPackageError, match=r"pip install 'rag-frozen\[ray\]'"):
            next(cluster.map(str, [1]))


@pytest.mark.parametrize("blind", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_shards_made_elsewhere_are_those_made_here(
    tmp_path: Path, dtype: VectorType, blind: bool
) -> None:
    told: dict[str, list[int]] = {"here": [], "there": []}
    elsewhere = {
        "here": None,
        "there": shards_on(
            Here(blind=blind), make, ANY, digest=HashEncoder.digest, dtype=dtype,
            folder=tmp_path / "there",
        ),
    }  # fmt: skip
    ids: dict[str, list[str]] = {"here": [], "there": []}
    for name in told:
        count = encode_shards(
            tmp_path / name, PASSAGES, HashEncoder(), n_passages=40, shard_size=16, dtype=dtype,
            progress=told[name].append, elsewhere=elsewhere[name], told=ids[name].extend,
        )  # fmt: skip
        assert count == 40
    assert ids["here"] == ids["there"] == [passage.id for passage in PASSAGES]
    assert told["there"] == [16, 32, 40, 40]
    files = {name: {p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in told}
    assert len(files["here"]) == 3
    assert files["here"] == files["there"]


def test_finished_shards_are_not_made_again_and_what_killed_workers_left_goes(
    tmp_path: Path,
) -> None:
    encode_shards(tmp_path, PASSAGES, HashEncoder(), n_passages=40, shard_size=16)
    whole = StoredVectors(tmp_path).take(np.arange(40))
    (tmp_path / "vectors-00001.npy").unlink()
    (tmp_path / "vectors-00001.0123abcd.partial").write_bytes(b"half")
    made: list[Path] = []

    class Watched(Here):
        def map(self, function: Any, items: Any, *, device: bool = False) -> Iterator[Any]:
            for path, *rest in super().map(function, items, device=device):
                made.append(path)
                yield path, *rest

    told: list[int] = []
    encode_shards(
        tmp_path, PASSAGES, HashEncoder(), n_passages=40, shard_size=16, progress=told.append,
        elsewhere=shards_on(
            Watched(), make, ANY, digest=HashEncoder.digest, dtype="float16", folder=tmp_path
        ),
    )  # fmt: skip
    assert [path.name for path in made] == ["vectors-00001.npy"]
    assert told == [40, 40]
    assert np.array_equal(StoredVectors(tmp_path).take(np.arange(40)), whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"vectors-0000{n}.npy" for n in range(3)
    ]


def test_another_encoder_on_a_machine_is_refused(tmp_path: Path) -> None:
    maker = shards_on(Here(), make, ANY, digest="f" * 64, dtype="float16", folder=tmp_path)
    with pytest.raises(ArtifactMismatchError, match="the encoder hash has digest 000000000000"):
        list(maker([MissingShard(tmp_path / "vectors-00000.npy", tuple(PASSAGES))]))
    assert list(tmp_path.iterdir()) == []


def test_a_shard_that_never_appears_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "_APPEARS", 0.3)
    maker = shards_on(Here(idle=True), make, ANY, digest="0", dtype="float16", folder=tmp_path)
    with pytest.raises(StorageError, match="not seen here"):
        list(maker([MissingShard(tmp_path / "vectors-00000.npy", tuple(PASSAGES))]))


class Anywhere:
    """Runs at once what would run elsewhere, on one core; ``blind`` workers see no folder."""

    def __init__(self, *, blind: bool = False) -> None:
        self.blind = blind
        self.seen: list[bool] = []

    def map(
        self, function: Callable[[Any], Any], items: Iterable[Any], *, device: bool = False
    ) -> Iterator[Any]:
        assert not device
        for item in items:
            if self.blind:
                function.keywords["mark"].unlink(missing_ok=True)  # type: ignore[attr-defined]
            self.seen.append(function(item))
            yield self.seen[-1]


@pytest.mark.parametrize("blind", [False, True])
def test_parts_of_a_search_made_elsewhere_are_those_made_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blind: bool
) -> None:
    monkeypatch.setattr(dense_parts, "PART_SIZE", 300)
    build_ivf(tmp_path / "here", store(tmp_path / "here", clustered(1_000)), lists=8)
    there = store(tmp_path / "there", clustered(1_000))
    left = tmp_path / "there" / "index.faiss.part-000000000300.0123abcd.partial"
    left.write_bytes(b"half")
    elsewhere = Anywhere(blind=blind)
    told: list[int] = []
    build_ivf(
        tmp_path / "there", there, lists=8, progress=told.append,
        elsewhere=parts_on(elsewhere, tmp_path / "there"),
    )  # fmt: skip
    assert told == [300, 600, 900, 1_000]
    assert elsewhere.seen == [not blind] * 4
    files = {
        name: {p.name: p.read_bytes() for p in (tmp_path / name).iterdir()}
        for name in ("here", "there")
    }
    assert files["here"] == files["there"]
