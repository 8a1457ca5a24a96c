"""Draw the batch of the next step while the network computes this one."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from torch import Generator

from ctflow_fed.ct.store import LatentStore
from ctflow_fed.training.batch import DRAWS, ClipBatch
from ctflow_fed.training.settings import TrainSettings

__all__ = ["Drawn", "drawn_ahead"]


class Drawn(NamedTuple):
    """The batch of a step, and the generator that draws its times and noise next."""

    step: int
    batch: ClipBatch
    generator: Generator


def drawn_ahead(
    store: LatentStore,
    settings: TrainSettings,
    steps: Iterable[int],
    generator_of: Callable[[int], Generator],
) -> Iterator[Drawn]:
    """Yield the batch of each step; a thread draws the next one meanwhile.

    What is drawn is a function of the step, so it is the same as in line. An error
    surfaces where its step is asked for.
    """

    def draw(step: int) -> Drawn:
        generator = generator_of(step)
        return Drawn(
            step, DRAWS[settings.method](store, settings, generator), generator
        )

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="draw") as pool:
        coming: Future[Drawn] | None = None
        for step in steps:
            ready, coming = coming, pool.submit(draw, step)
            if ready is not None:
                yield ready.result()
        if coming is not None:
            yield coming.result()
