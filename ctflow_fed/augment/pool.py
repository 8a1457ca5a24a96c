"""Who does the work: this process, or the actors of a Ray."""

import logging
import os
import secrets
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from types import ModuleType
from typing import Any, Protocol

from ctflow_fed.augment.request import SynthRequest
from ctflow_fed.errors import MissingExtraError, SettingsError

__all__ = ["Batch", "LocalPool", "Pool", "RayPool", "Worker"]

log = logging.getLogger(__name__)

Batch = Sequence[SynthRequest]
"""Requests that are drawn together."""

Worker = Callable[[Batch], list[str]]
"""Draws and writes a batch; says for each request why it failed, "" if it did not."""

OBJECT_STORE = 100 * 2**20
"""Bytes of Ray's shared memory. Only requests pass through it, never a volume; Ray
takes no less than 75 MiB, and a container's /dev/shm may hold no more than 64."""

DEATHS_IN_A_ROW = 3
"""Lost workers, per worker, without a batch done between, after which we give up."""


class Pool(Protocol):
    """Something that has batches worked on."""

    def run(
        self, make_worker: Callable[[], Worker], batches: Sequence[Batch]
    ) -> Iterator[tuple[Batch, list[str]]]:
        """Yield each batch with what its worker said, in any order.

        ``make_worker`` is called once in each process. A batch whose worker died is
        yielded too; one that was given up is not.
        """
        ...


class LocalPool:
    """Works in this process, one batch after another."""

    def run(
        self, make_worker: Callable[[], Worker], batches: Sequence[Batch]
    ) -> Iterator[tuple[Batch, list[str]]]:
        """See `Pool`."""
        worker = make_worker()
        for batch in batches:
            yield batch, worker(batch)


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
    ) -> Iterator[tuple[Batch, list[str]]]:
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
    ) -> Iterator[tuple[Batch, list[str]]]:
        """Keep every actor busy with one batch; put a new one in a dead one's place."""
        from ctflow_fed.machine import cores  # it loads torch

        found = ray.cluster_resources()
        count = max(1, min(self.workers, len(batches), int(found.get("CPU", 1))))
        threads = max(1, cores() // count)
        options = {"num_cpus": 1, "num_gpus": min(1.0, found.get("GPU", 0) / count)}
        actor_class = ray.remote(_Actor).options(**options)

        waiting, deaths = deque(batches), 0
        running: dict[Any, tuple[Any, Batch]] = {}
        actors = [actor_class.remote(make_worker, threads) for _ in range(count)]
        while waiting or running:
            while actors and waiting:
                actor, batch = actors.pop(), waiting.popleft()
                running[actor.work.remote(batch)] = actor, batch
            (ready,), _ = ray.wait(list(running), num_returns=1)
            actor, batch = running.pop(ready)
            try:
                said, deaths = ray.get(ready), 0
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None  # it could not be made: nor could another
            except ray.exceptions.RayError as error:
                log.warning("a worker was lost: %s", type(error).__name__)
                said, deaths = ["its worker was lost"] * len(batch), deaths + 1
                ray.kill(actor)
                actor = actor_class.remote(make_worker, threads)
            yield batch, said
            if deaths > DEATHS_IN_A_ROW * count:
                return
            actors.append(actor)


class _Actor:
    """A worker in a process of its own, made when its first batch comes."""

    def __init__(self, make_worker: Callable[[], Worker], threads: int) -> None:
        self.make_worker = make_worker
        self.threads = threads

    def work(self, batch: Batch) -> list[str]:
        """Have a batch worked on."""
        return self.worker(batch)

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
