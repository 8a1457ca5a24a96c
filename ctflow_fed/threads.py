"""Work that is done ahead by threads: numpy, torch and hashes let others run."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from ctflow_fed.machine import cores

__all__ = ["ahead"]

Given = TypeVar("Given")
Made = TypeVar("Made")

MOST_THREADS = 4
"""More would hold more of what is made in memory than they save of time."""


def ahead(make: Callable[[Given], Made], items: Iterable[Given]) -> Iterator[Made]:
    """Yield what ``make`` gives for each item, in order; threads make the next ones.

    No more are made ahead than there are threads. An error surfaces where its item is
    due.
    """
    threads = min(cores(), MOST_THREADS)
    with ThreadPoolExecutor(threads) as pool:
        coming: deque[Future[Made]] = deque()
        for item in items:
            coming.append(pool.submit(make, item))
            if len(coming) > threads:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
