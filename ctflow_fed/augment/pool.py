"""Who does the work: this process, or the actors of a Ray."""

import logging
import os
import secrets
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

from ctflow_fed.errors import MissingExtraError, SettingsError
from ctflow_fed.processes import LOST

__all__ = ["Batch", "LocalPool", "Pool", "RayPool", "Worker"]

log = logging.getLogger(__name__)

Batch = Sequence[Any]
"""What is worked on together: requests that are drawn, entries that are taken in."""

Results = Generator[tuple[Batch, list[Any]], None, None]
"""Batches with what became of their parts; to close it ends the work."""


@runtime_checkable
class Worker(Protocol):
    """Draws batches and writes them, the next while the last is still being written."""

    def draw(self, batch: Batch) -> Any:  # noqa: ANN401  # its own affair
        """Draw a batch; what comes of it goes to `write`, in the same process."""
        ...

    def write(self, batch: Batch, drawn: Any) -> list[Any]:  # noqa: ANN401
        """Write what was drawn; say for each part what became of it."""
        ...


OBJECT_STORE = 100 * 2**20
"""Bytes of Ray's shared memory. Only requests pass through it, never a volume; Ray
takes no less than 75 MiB, and a container's /dev/shm may hold no more than 64."""

AT_ONCE = 2
"""Batches of an actor: one is drawn while the other is packed and written. It bounds
what an actor holds in memory."""

DEATHS_IN_A_ROW = 3
"""Lost workers, per worker, without a batch done between, after which we give up."""


@runtime_checkable
class Pool(Protocol):
    """Something that has batches worked on."""

    def run(
        self, make_worker: Callable[[], Worker], batches: Sequence[Batch]
    ) -> Results:
        """Yield each batch with what its worker said, in any order.

        ``make_worker`` is called once in each process. A batch whose worker died is
        yielded too; one that was given up is not.
        """
        ...


class LocalPool:
    """Works in this process: draws in one thread, writes in another."""

    def run(
        self, make_worker: Callable[[], Worker], batches: Sequence[Batch]
    ) -> Results:
        """See `Pool`."""
        worker = make_worker()
        writing: tuple[Batch, Future[list[Any]]] | None = None
        with ThreadPoolExecutor(1) as hand:
            for batch in batches:
                drawn = worker.draw(batch)
                if writing is not None:
                    yield writing[0], writing[1].result()
                writing = batch, hand.submit(worker.write, batch, drawn)
            if writing is not None:
                yield writing[0], writing[1].result()


class RayPool:
    """Works in ``workers`` Ray actors, here or on the cluster of an ``address``.

    A Ray that is running in this process is used and left running; otherwise one is
    started on this machine, or joined, and left afterwards. The actors of a cluster
    need this package installed and must see the same folders under the same paths. GPUs
    are shared out evenly; on a CPU each actor takes its share of the cores.
    """

    def __init__(self, workers: int, address: str | None = None) -> None:
        if workers < 1:
            raise SettingsError(f"a pool needs 1 worker or more, got {workers}")
        self.workers = workers
        self.address = address

    def run(
        self, make_worker: Callable[[], Worker], batches: Sequence[Batch]
    ) -> Results:
        """See `Pool`."""
        ray = _import_ray(joins=self.address is not None)
        started = not ray.is_initialized()
        if started:
            self._start(ray)
        try:
            yield from self._dispatch(ray, make_worker, batches)
        finally:
            if started:
                ray.shutdown()

    def _start(self, ray: ModuleType) -> None:
        """Join the cluster of the address, or start a quiet Ray of our own."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Actors without a GPU of their own keep the visible devices, Ray's future way.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        if self.address is not None:
            ray.init(self.address, **quiet)
            return
        ray.init(
            "local",
            num_cpus=self.workers,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE,
            **quiet,
        )

    def _dispatch(
        self,
        ray: ModuleType,
        make_worker: Callable[[], Worker],
        batches: Sequence[Batch],
    ) -> Results:
        """Keep every actor busy; put a new one in a dead one's place."""
        from ctflow_fed.machine import cores  # it loads torch

        found = ray.cluster_resources()
        count = max(1, min(self.workers, len(batches), int(found.get("CPU", 1))))
        threads = max(1, cores() // count)
        options = {"num_cpus": 1, "num_gpus": min(1.0, found.get("GPU", 0) / count)}
        actor_class = ray.remote(_Actor).options(**options, max_concurrency=AT_ONCE)
        crew = _Crew(lambda: actor_class.remote(make_worker, threads), count)

        waiting, deaths = deque(batches), 0
        while waiting or crew.running:
            while waiting and (member := crew.free(len(waiting))) is not None:
                crew.give(member, waiting.popleft())
            (ready,), _ = ray.wait(list(crew.running), num_returns=1)
            member, batch = crew.take(ready)
            try:
                said, deaths = ray.get(ready), 0
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None  # it could not be made: nor could another
            except ray.exceptions.RayError as error:
                said = [LOST] * len(batch)
                if crew.replace(member):
                    log.warning("a worker was lost: %s", type(error).__name__)
                    ray.kill(member.actor)
                    deaths += 1
            yield batch, said
            if deaths > DEATHS_IN_A_ROW * count:
                return


@dataclass(eq=False)
class _Member:
    """An actor, and how many batches it has."""

    actor: Any
    busy: int = 0


class _Crew:
    """The actors that live, and what each of them is working on."""

    def __init__(self, make_actor: Callable[[], Any], count: int) -> None:
        self.make_actor = make_actor
        self.members = [_Member(make_actor()) for _ in range(count)]
        self.running: dict[Any, tuple[_Member, Batch]] = {}

    def free(self, waiting: int) -> _Member | None:
        """Return who has least to do, None where all have enough.

        The last batches go to the idle only, so that all end at the same time.
        """
        member = min(self.members, key=lambda each: each.busy)
        most = AT_ONCE if waiting > len(self.members) else 1
        return member if member.busy < most else None

    def give(self, member: _Member, batch: Batch) -> None:
        """Let an actor work on a batch."""
        member.busy += 1
        self.running[member.actor.work.remote(batch)] = member, batch

    def take(self, ready: Any) -> tuple[_Member, Batch]:  # noqa: ANN401  # a reference
        """Return whose result is ready, and of which batch."""
        member, batch = self.running.pop(ready)
        member.busy -= 1
        return member, batch

    def replace(self, dead: _Member) -> bool:
        """Put a new actor in a dead one's place, unless that was done already."""
        if dead not in self.members:
            return False
        self.members.remove(dead)
        self.members.append(_Member(self.make_actor()))
        return True


class _Actor:
    """A worker in a process of its own, made when its first batch comes."""

    def __init__(self, make_worker: Callable[[], Worker], threads: int) -> None:
        self.make_worker = make_worker
        self.threads = threads
        self.drawing = threading.Lock()

    def work(self, batch: Batch) -> list[Any]:
        """Draw a batch once no other is being drawn, and write it."""
        with self.drawing:
            worker = self.worker
            drawn = worker.draw(batch)
        return worker.write(batch, drawn)

    @cached_property
    def worker(self) -> Worker:
        """The worker, with its share of the cores."""
        import torch

        torch.set_num_threads(self.threads)
        return self.make_worker()


def _import_ray(*, joins: bool) -> ModuleType:
    """Import Ray, closed to strangers unless it ``joins`` a cluster.

    The ports of a Ray are open to the network and run whatever they are sent. From 2.52
    on it can ask for a token, which it must know before it is imported.
    """
    if not joins and "ray" not in sys.modules:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        import ray
    except ImportError:
        raise MissingExtraError("ray", "augment") from None
    return ray
