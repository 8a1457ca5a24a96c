"""Work in the actors of a Ray, for commands that can do without."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ctflow_fed.errors import SettingsError

if TYPE_CHECKING:
    from ctflow_fed.processes import Pool, Worker

__all__ = ["actors"]


def actors(workers: int | None, ray: bool, address: str | None) -> "Pool | None":
    """Return the actors of a Ray, by default one a core; None where none was asked for.

    Raises ``SettingsError`` for an address without it.
    """
    from ctflow_fed.machine import cores

    if ray:
        return _Actors(workers or cores(), address)
    if address is not None:
        raise SettingsError("--address is that of a Ray; add --ray")
    return None


class _Actors:
    """Actors that have one batch after another."""

    def __init__(self, workers: int, address: str | None) -> None:
        from ctflow_fed.augment.pool import RayPool

        self._pool = RayPool(workers, address)

    def run(
        self, make_worker: Callable[[], "Worker"], batches: Sequence[Sequence[Any]]
    ) -> Iterator[tuple[Sequence[Any], list[Any]]]:
        """Yield each batch with the results of its parts, in any order."""
        return self._pool.run(partial(_Actor, make_worker), batches)


class _Actor:
    """Does all in one step: what is worked on is done before the next begins."""

    def __init__(self, make_worker: Callable[[], "Worker"]) -> None:
        self._work = make_worker()

    def draw(self, batch: Sequence[Any]) -> list[Any]:
        """Work on a batch."""
        return self._work(batch)

    def write(self, _: Sequence[Any], done: list[Any]) -> list[Any]:
        """Return what is done already."""
        return done
