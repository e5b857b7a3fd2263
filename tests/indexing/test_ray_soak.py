"""Two machines, workers killed and one machine lost in the middle: the artifacts are the same."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rag_frozen.errors import InputError, RagFrozenError
from rag_frozen.indexing.build import build_index
from rag_frozen.indexing.executors_ray import RayCluster
from tests.indexing.test_ray import one_thread, recipe, same, squared

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'rag-frozen[ray]'")
pytestmark = pytest.mark.soak
__all__ = ["one_thread"]  # a fixture

MEMORY = {"object_store_memory": 100 * 2**20}


@pytest.fixture(autouse=True)
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is reported to Ray's makers, and what a test joined is left."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    yield
    ray.shutdown()


def busy_workers() -> list[int]:
    """Processes that run our tasks, of the Ray machines that this process started."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            title = (folder / "cmdline").read_text()
            if title.startswith("ray::rag-frozen") and grandparent(folder) == os.getpid():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def grandparent(folder: Path) -> int:
    for _ in range(2):
        parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        folder = Path(f"/proc/{parent}")
    return parent


class Killer:
    """Kills a worker when so much of a step is done."""

    def __init__(self, when: dict[str, int]) -> None:
        self.when = dict(when)
        self.killed: list[str] = []

    def report(self, step: str, done: int, total: int | None) -> None:
        if done < self.when.get(step, 2**60):
            return
        until = time.monotonic() + 20
        while time.monotonic() < until:
            if workers := busy_workers():
                os.kill(workers[0], signal.SIGKILL)
                self.killed.append(step)
                del self.when[step]
                return
            time.sleep(0.01)


def listens(port: int) -> None:
    """Wait until the server for clients, a process of its own, has started."""
    until = time.monotonic() + 90
    while time.monotonic() < until:
        with socket.socket() as knocking:
            if knocking.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise TimeoutError(f"Ray's server for clients does not listen on port {port}")


def dies(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are seen in /proc")
def test_two_machines_with_killed_workers_and_then_one_machine_build_what_this_one_does(
    tmp_path: Path, one_thread: None
) -> None:
    from ray.cluster_utils import Cluster

    sizes = {"n_pages": 4_000, "shard_size": 200}
    here = build_index(recipe(tmp_path, **sizes), root=tmp_path / "here")
    assert here.part("corpus").n_passages == 4_000
    machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **MEMORY})
    second = machines.add_node(num_cpus=1, **MEMORY)
    killer = Killer({"corpus": 1_000, "dense index": 800})
    lost: list[int] = []

    def report(step: str, done: int, total: int | None) -> None:
        killer.report(step, done, total)
        if step == "dense index" and done >= 2_000 and not lost:
            machines.remove_node(second, allow_graceful=False)
            lost.append(done)

    try:
        machines.wait_for_nodes()
        executor = {"kind": "ray", "address": machines.address}
        wanted = recipe(tmp_path, **sizes, executor=executor)
        there = build_index(wanted, root=tmp_path / "there", report=report)
        assert not ray.is_initialized()
    finally:
        ray.shutdown()
        machines.shutdown()
    assert killer.killed == ["corpus", "dense index"]
    assert lost
    assert lost[0] < 4_000
    same(here, there)


def test_a_ray_of_this_machine_is_started_and_ended_and_a_task_that_always_dies_is_told() -> None:
    with RayCluster() as own:
        assert list(own.map(squared, range(5))) == [0, 1, 4, 9, 16]
        assert ray.is_initialized()
        with pytest.raises(RagFrozenError, match="3 times begun again"):
            list(own.map(dies, [1]))
    assert not ray.is_initialized()


def test_a_cluster_is_used_from_outside_through_its_client_port(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("grpc", reason="pip install 'rag-frozen[ray]'")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # not ours: the cluster's
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {"num_cpus": 2, "ray_client_server_port": port, **MEMORY}
    machines = Cluster(initialize_head=True, head_node_args=settings)
    try:
        listens(port)
        with RayCluster(f"ray://127.0.0.1:{port}") as outside:
            assert list(outside.map(squared, range(20))) == [n * n for n in range(20)]
            with pytest.raises(InputError, match=r"^-1 is negative$"):
                list(outside.map(squared, [1, -1, 2]))
        assert not ray.is_initialized()
    finally:
        ray.shutdown()
        machines.shutdown()


def test_a_cluster_that_does_not_answer_is_told() -> None:
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1"):
        with pytest.raises(InputError, match=r"No Ray cluster answers.*ray start --head"):
            list(RayCluster(address).map(squared, [1]))
