"""Processes of this machine that work side by side, and may die one by one."""

import faulthandler
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from ctflow_fed.errors import SettingsError

__all__ = ["LOST", "Pool", "Processes", "ThisProcess", "Worker", "time_limit"]

Worker = Callable[[Sequence[Any]], list[Any]]
"""Works on a batch and returns a result for each part of it."""

LOST = "its worker was lost"
"""The result for each part of a batch whose worker died: memory, or a decoder."""

DEATHS_IN_A_ROW = 10
"""Lost workers, without a batch done between, after which the rest is lost too."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """End this process, without a word, when the work within takes longer.

    It is for workers alone: nothing else ends a decoder that hangs.
    """
    with Path(os.devnull).open("w") as nowhere:
        faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


@runtime_checkable
class Pool(Protocol):
    """Who does the work: this process, processes of this machine, or a Ray."""

    def run(
        self, make_worker: Callable[[], Worker], batches: Sequence[Sequence[Any]]
    ) -> Iterator[tuple[Sequence[Any], list[Any]]]:
        """Yield each batch with a result for each part of it, in any order."""
        ...


class ThisProcess:
    """Works on one batch after another, here."""

    def run(
        self, make_worker: Callable[[], Worker], batches: Sequence[Sequence[Any]]
    ) -> Iterator[tuple[Sequence[Any], list[Any]]]:
        """Yield each batch with the results of its parts."""
        worker = make_worker()
        for batch in batches:
            yield batch, worker(batch)


class Processes:
    """Works in ``workers`` processes of one thread each.

    ``make_worker`` is called once in each of them; what it raises is raised here. A
    batch whose worker died is yielded as `LOST`, and another takes its place.
    """

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise SettingsError(f"expected 1 worker or more, got {workers}")
        self.workers = workers

    def run(
        self, make_worker: Callable[[], Worker], batches: Sequence[Sequence[Any]]
    ) -> Iterator[tuple[Sequence[Any], list[Any]]]:
        """Yield each batch with the results of its parts, in any order."""
        waiting, deaths = deque(batches), 0
        crew: dict[Connection, BaseProcess] = {}
        busy: dict[Connection, Sequence[Any]] = {}
        try:
            while waiting or busy:
                while waiting and len(busy) < self.workers:
                    idle = next((one for one in crew if one not in busy), None)
                    connection = idle or _hire(make_worker, crew)
                    busy[connection] = waiting.popleft()
                    connection.send(busy[connection])
                connection = cast("Connection", wait(list(busy))[0])
                batch, results = busy.pop(connection), _results(connection, crew)
                deaths = deaths + 1 if results is None else 0
                yield batch, [LOST] * len(batch) if results is None else results
                if deaths >= DEATHS_IN_A_ROW:
                    yield from ((rest, [LOST] * len(rest)) for rest in waiting)
                    return
        finally:
            for connection, process in crew.items():
                connection.close()
                process.terminate()
                process.join()


def _hire(
    make_worker: Callable[[], Worker], crew: dict[Connection, BaseProcess]
) -> Connection:
    """Start a process; spawned, because threads of torch do not survive a fork."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, make_worker), daemon=True)
    process.start()
    theirs.close()
    crew[ours] = process
    return ours


def _results(
    connection: Connection, crew: dict[Connection, BaseProcess]
) -> list[Any] | None:
    """Receive what a worker says, None when it died."""
    try:
        said = connection.recv()
    except (EOFError, OSError):
        process = crew.pop(connection)
        connection.close()
        process.terminate()
        process.join()
        return None
    if isinstance(said, Exception):
        raise said
    results: list[Any] = said
    return results


def _serve(connection: Connection, make_worker: Callable[[], Worker]) -> None:
    """Work on batches until nobody sends any more."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    torch.set_num_threads(1)
    try:
        worker = make_worker()
    except Exception as error:  # noqa: BLE001  to be raised where it is understood
        connection.send(error)
        return
    while True:
        try:
            batch = connection.recv()
        except EOFError:
            return
        connection.send(worker(batch))
