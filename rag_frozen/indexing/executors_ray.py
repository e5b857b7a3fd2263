"""Functions over many items on a Ray cluster: in order, bounded, again if a worker dies.

Knows nothing about what is computed. Ray is imported, and a cluster asked for, when the first
function is to run; a Ray that the calling program has joined is used as it is, and left running.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

from rag_frozen import __version__
from rag_frozen.errors import ArtifactMismatchError, InputError, MissingPackageError, RagFrozenError

__all__ = ["RayCluster"]

Item = TypeVar("Item")
Result = TypeVar("Result")
_RETRIES = 3  # times that a task is begun again when its worker or machine is lost
_AHEAD = 2  # tasks in flight for each that the cluster runs at once
_ANSWERS = 15.0  # seconds in which a cluster must take a connection
_USAGE = "RAY_USAGE_STATS_ENABLED"
_log = logging.getLogger(__name__)


class RayCluster:
    """Runs functions on a Ray cluster (``corpus.parallel.Executor``); a context manager, which
    leaves the cluster that it joined."""

    def __init__(
        self,
        address: str | None = None,
        *,
        cpus_per_task: float = 1.0,
        gpus_per_task: float = 0.0,
        tasks_in_flight: int | None = None,
    ) -> None:
        """Name a cluster.

        Args:
            address: as of ``ray.init``: ``auto``, ``ray://HOST:10001``, or None for a Ray of this
                machine alone, which ends with this object.
            cpus_per_task: cores that a task takes.
            gpus_per_task: GPUs that a task takes which has use for one.
            tasks_in_flight: that wait, run or have results which were not fetched yet; twice what
                the cluster can run at once where it is not given.
        """
        self._address = address
        self._cpus = cpus_per_task
        self._gpus = gpus_per_task
        self._in_flight = tasks_in_flight
        self._ray: Any = None  # Any: the module ray, which is optional
        self._joined = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._joined:
            self._joined = False
            self._ray.shutdown()

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item], *, device: bool = False
    ) -> Iterator[Result]:
        """Yield ``function(item)`` for each item, in their order.

        ``function``, the items and the results must be picklable; ``function`` may run twice with
        one item. ``device``: it has use for a GPU.

        Raises:
            MissingPackageError: when Ray is not installed.
            InputError: when the cluster cannot be reached, or can never run a task.
            ArtifactMismatchError: when a machine has another version of this package.
            RagFrozenError: when a worker dies again and again.
        """
        ray = self._connect()
        gpus = self._gpus if device else 0.0
        in_flight = self._in_flight or self._room(gpus)
        task = ray.remote(_run).options(
            num_cpus=self._cpus, num_gpus=gpus, max_retries=_RETRIES, name=_name(function)
        )
        work = ray.put(function)  # sent to each machine once
        waiting: deque[Any] = deque()  # Any: ray.ObjectRef
        try:
            for item in items:
                waiting.append(task.remote(work, item, __version__))
                if len(waiting) >= in_flight:
                    yield self._result(waiting.popleft())
            while waiting:
                yield self._result(waiting.popleft())
        finally:
            for reference in waiting:
                ray.cancel(reference)

    def _result(self, reference: Any) -> Any:  # Any: ray.ObjectRef; what the function returned
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except errors.RayTaskError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, Exception):
                raise cause from error
            raise
        except errors.RayError as error:
            raise RagFrozenError(
                f"A task of the Ray cluster was lost, {_RETRIES} times begun again: {error} "
                "Memory may have run out on a machine: ask for more cores a task with "
                "executor.cpus_per_task, so that fewer run at once. Ray's own account of it is in "
                "/tmp/ray/session_latest/logs on each machine. The same command goes on from what "
                "was finished."
            ) from error

    def _connect(self) -> Any:  # Any: the module ray
        if self._ray is None:
            try:
                import ray
            except ImportError as error:
                raise MissingPackageError(
                    "executor: ray needs the package ray. Install it with: "
                    "pip install 'rag-frozen[ray]'"
                ) from error
            self._ray = ray
        if not self._ray.is_initialized():
            self._join()
        return self._ray

    def _join(self) -> None:
        quiet = {"logging_level": logging.WARNING, "log_to_driver": False}
        if self._address is None:
            with _no_usage_reports():
                self._ray.init(address="local", include_dashboard=False, **quiet)
        else:
            try:
                _knock(self._address)
                self._ray.init(address=self._address, **quiet)
            except (OSError, ValueError, RuntimeError, self._ray.exceptions.RayError) as error:
                raise InputError(
                    f"No Ray cluster answers at address {self._address!r}: {error} Start one with "
                    "ray start --head on one machine and ray start --address=HOST:6379 on the "
                    "others, with the same versions of Python, ray and rag-frozen, or leave "
                    "executor.address out to use this machine alone."
                ) from error
        self._joined = True

    def _room(self, gpus: float) -> int:
        """Twice the number of tasks that the cluster can run at once, at least two."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        slots = sum(self._slots(node, gpus) for node in nodes)
        if not slots:
            largest = max((node.get("CPU", 0) for node in nodes), default=0)
            said = (
                f"A task asks for {self._cpus:g} cores and {gpus:g} GPUs, and no machine of the "
                f"Ray cluster has them; the largest has {largest:g} cores."
            )
            if self._address is None:
                raise InputError(f"{said} Lower executor.cpus_per_task or gpus_per_task.")
            _log.warning("%s Waiting for one that the cluster may add.", said)
        return max(2, _AHEAD * slots)

    def _slots(self, node: dict[str, float], gpus: float) -> int:
        slots = node.get("CPU", 0.0) / self._cpus
        return int(min(slots, node.get("GPU", 0.0) / gpus) if gpus else slots)


def _knock(address: str) -> None:
    """Raise ``OSError`` where nothing listens; Ray itself would try for many minutes."""
    place = address.removeprefix("ray://")
    host, colon, port = place.rpartition(":")
    if colon and port.isdigit() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWERS).close()


def _run(function: Callable[[Item], Result], item: Item, version: str) -> Result:
    """What a worker does."""
    if __version__ != version:
        raise ArtifactMismatchError(
            f"A machine of the Ray cluster ({os.uname().nodename}) has rag-frozen {__version__}, "
            f"this one {version}. Install the same version on all."
        )
    return function(item)


def _name(function: Callable[..., object]) -> str:
    """The name that Ray's tools show; of a partial, that of the function within."""
    inner = getattr(function, "func", function)
    return f"rag-frozen {getattr(inner, '__name__', type(inner).__name__).strip('_')}"


@contextmanager
def _no_usage_reports() -> Iterator[None]:
    """A Ray that we start tells its makers nothing; the variable is all that Ray offers for it."""
    before = os.environ.get(_USAGE)
    os.environ[_USAGE] = before or "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_USAGE]
