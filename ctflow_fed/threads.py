"""Work that is done ahead by threads: numpy, torch and hashes let others run."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from ctflow_fed.machine import cores

__all__ = ["ahead", "each_ahead"]

Given = TypeVar("Given")
Made = TypeVar("Made")

MOST_THREADS = 4
"""More would hold more of what is made in memory than they save of time."""


def ahead(make: Callable[[Given], Made], items: Iterable[Given]) -> Iterator[Made]:
    """Yield what ``make`` gives for each item, in order; threads make the next ones.

    No more are made ahead than there are threads. An error surfaces where its item is
    due.
    """
    return (made for _, made in each_ahead(make, items))


def each_ahead(
    make: Callable[[Given], Made], items: Iterable[Given]
) -> Iterator[tuple[Given, Made]]:
    """Yield the same as `ahead`, each after its item."""
    threads = min(cores(), MOST_THREADS)
    with ThreadPoolExecutor(threads) as pool:
        coming: deque[tuple[Given, Future[Made]]] = deque()
        for item in items:
            coming.append((item, pool.submit(make, item)))
            if len(coming) > threads:
                first, made = coming.popleft()
                yield first, made.result()
        for last, made in coming:
            yield last, made.result()
