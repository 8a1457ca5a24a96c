"""Randomness that nobody can repeat: for the noise of DP-SGD, and for who takes part.

All other randomness here is a function of (seed, round, site, step). This is the one
exception: a server knows those four, and who can repeat the noise can take it away.
torch's generators would not do, whatever they are seeded with: that of a CPU keeps 32
bits of its seed.
"""

import os
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

__all__ = ["Randomness", "SystemRandomness"]

Numbers = NDArray[np.float64]


@runtime_checkable
class Randomness(Protocol):
    """What draws; numpy's generators do too, for tests that have to repeat."""

    def random(self, size: int) -> Numbers:
        """Return numbers drawn evenly from 0 up to, but without, 1."""
        ...

    def standard_normal(self, size: int) -> Numbers:
        """Return numbers drawn from the standard normal distribution."""
        ...


class SystemRandomness:
    """The operating system's generator, which is cryptographically safe."""

    def random(self, size: int) -> Numbers:
        """Return multiples of ``2^-53`` from 0 up to, but without, 1."""
        words = np.frombuffer(os.urandom(8 * size), dtype=np.uint64)
        return np.ldexp((words >> np.uint64(11)).astype(np.float64), -53)

    def standard_normal(self, size: int) -> Numbers:
        """Return half the sum of four normal numbers each.

        A single one has gaps that can give away what it was added to; those of a sum of
        four are too fine to be searched (arXiv 2107.10138, Sec. 5).
        """
        first, second, third, fourth = _box_muller(self.random(4 * size)).reshape(4, -1)
        return (first + second + third + fourth) / 2


def _box_muller(even: Numbers) -> Numbers:
    """Turn an even count of numbers in [0, 1) into as many normal ones."""
    first, second = np.split(even, 2)
    radius, angle = np.sqrt(-2 * np.log1p(-first)), 2 * np.pi * second
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
