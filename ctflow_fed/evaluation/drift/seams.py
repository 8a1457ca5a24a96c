"""Whether slices jump where clips meet."""

from collections.abc import Sequence
from math import comb
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from ctflow_fed.evaluation.drift.profile import jumps_of
from ctflow_fed.shapes import HU

__all__ = ["PERIOD", "Seams", "phase_test", "seam_places", "seam_ratio", "seams_of"]

PERIOD = 16
"""Where the clips of the paper meet: every 16th slice."""

Jumps = Float64[np.ndarray, " _"]


class Seams(NamedTuple):
    """The jumps of one volume, added up: across seams, and elsewhere."""

    across: float
    places: int
    elsewhere: float
    others: int


def seam_places(neighbours: int, period: int = PERIOD) -> np.ndarray:
    """Return which of so many pairs of neighbours lie across a seam."""
    return np.arange(period - 1, neighbours, period)


def seams_of(jumps: Jumps, period: int = PERIOD) -> Seams:
    """Add up the jumps of one volume."""
    across = jumps[seam_places(len(jumps), period)]
    return Seams(
        float(across.sum()),
        len(across),
        float(jumps.sum() - across.sum()),
        len(jumps) - len(across),
    )


def seam_ratio(volumes: Sequence[HU], real: Sequence[HU]) -> float:
    """Return the mean jump across every 16th slice over that elsewhere, against real.

    Anatomy too jumps more at some heights than at others: the ratio is divided by that
    of real volumes, so that 1 is no seam.
    """
    drawn, known = (
        np.sum([seams_of(jumps_of(hu)) for hu in side], axis=0)
        for side in (volumes, real)
    )
    return float(_ratio(drawn) / _ratio(known))


def phase_test(volumes: Sequence[Jumps], period: int = PERIOD) -> float:
    """Return how likely chance alone makes the seam the largest phase so often.

    Of the phases ``z mod period`` each is the largest in one of ``period`` volumes; the
    tail of the binomial over volumes with two seams or more. NaN where there is none.
    """
    long = [jumps for jumps in volumes if len(jumps) >= 2 * period]
    if not long:
        return float("nan")
    hits = 0
    for jumps in long:
        means = [jumps[phase::period].mean() for phase in range(period)]
        hits += int(np.argmax(means) == period - 1)
    chance, count = 1 / period, len(long)
    return sum(
        comb(count, k) * chance**k * (1 - chance) ** (count - k)
        for k in range(hits, count + 1)
    )


def _ratio(sums: np.ndarray) -> float:
    """Return the mean across seams over the mean elsewhere; NaN without a seam."""
    across, places, elsewhere, others = sums
    return float(across / places / (elsewhere / others)) if places else float("nan")
