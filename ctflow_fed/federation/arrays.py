"""Weights as named arrays, which may be more than memory holds.

Whoever goes through arrays by their names has one of them at a time, be they in memory,
in a file, or computed when they are asked for. Whoever goes through them by their runs
has a piece that fits the cache, for which memory need not be found anew.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ctflow_fed.weights import WeightsDigest

__all__ = [
    "Arrays",
    "FloatArray",
    "LazyArrays",
    "Manifest",
    "PiecedArrays",
    "Run",
    "arrays_digest",
    "as_lazy",
    "manifest_of",
    "runs_of",
    "spans_of",
    "values_of",
]

FloatArray = NDArray[np.float32]

Arrays = Mapping[str, FloatArray]
"""Weights by name: all of a network, or those that a job trains."""

Manifest = Mapping[str, tuple[int, ...]]
"""The name and the shape of every array of a round."""

PIECE = 2**16  # values; as float64 those of a few sites fit the cache
LONGEST_RUN = 4 * PIECE  # whole blocks of int8, which are encoded run by run


class Run(NamedTuple):
    """Values of an array that follow one another; ``span`` counts in one axis."""

    name: str
    span: slice


class LazyArrays(Mapping[str, FloatArray]):
    """Arrays that ``make`` gives by name, each time that one is asked for."""

    def __init__(self, manifest: Manifest, make: Callable[[str], FloatArray]) -> None:
        self.manifest = dict(sorted(manifest.items()))
        self._make = make

    def __getitem__(self, name: str) -> FloatArray:
        if name not in self.manifest:
            raise KeyError(name)
        return self._make(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.manifest)

    def __len__(self) -> int:
        return len(self.manifest)

    def values_of(self, run: Run) -> FloatArray:
        """Return the values of a run, in one axis."""
        return self[run.name].reshape(-1)[run.span]

    def runs(self) -> Iterator[Run]:
        """Yield the runs by which all values are had at the least cost, in order."""
        for name, shape in self.manifest.items():
            yield Run(name, slice(0, math.prod(shape)))

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the arrays, as `arrays_digest` gives it."""
        digest = WeightsDigest()
        for run in self.runs():
            if not run.span.start:
                digest.begin(run.name, self.manifest[run.name])
            digest.update(self.values_of(run))
        return digest.hexdigest()


class PiecedArrays(LazyArrays):
    """Arrays of which ``make`` gives any run, each time that one is asked for."""

    def __init__(self, manifest: Manifest, make: Callable[[Run], FloatArray]) -> None:
        def whole(name: str) -> FloatArray:
            shape = manifest[name]
            return make(Run(name, slice(0, math.prod(shape)))).reshape(shape)

        super().__init__(manifest, whole)
        self._give = make

    def values_of(self, run: Run) -> FloatArray:
        """Return the values of a run, in one axis."""
        return self._give(run)

    def runs(self) -> Iterator[Run]:
        """Yield runs that fit the cache."""
        return runs_of(self.manifest)


def spans_of(values: int) -> Iterator[slice]:
    """Yield the spans in which so many values are computed with, one after another."""
    for place in range(0, values, PIECE):
        yield slice(place, place + PIECE)


def runs_of(manifest: Manifest) -> Iterator[Run]:
    """Yield runs that fit the cache, of all arrays in the order of their names."""
    for name in sorted(manifest):
        size = math.prod(manifest[name])
        for place in range(0, max(size, 1), LONGEST_RUN):
            yield Run(name, slice(place, min(place + LONGEST_RUN, size)))


def values_of(arrays: Arrays, run: Run) -> FloatArray:
    """Return the values of a run in one axis; of arrays in memory it is a view."""
    if isinstance(arrays, LazyArrays):
        return arrays.values_of(run)
    return arrays[run.name].reshape(-1)[run.span]


def manifest_of(arrays: Arrays) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of arrays, by name."""
    if isinstance(arrays, LazyArrays):
        return arrays.manifest
    return {name: tuple(arrays[name].shape) for name in sorted(arrays)}


def arrays_digest(arrays: Arrays) -> str:
    """Return the SHA-256 of weights, the same as that of a network that holds them."""
    return as_lazy(arrays).digest


def as_lazy(arrays: Arrays) -> LazyArrays:
    """Return arrays as those that are given when they are asked for."""
    if isinstance(arrays, LazyArrays):
        return arrays
    return LazyArrays(manifest_of(arrays), arrays.__getitem__)
