"""Real against synthetic and real against real, at equal n, over random halves.

A distance of sets of one size is biased; real volumes against other real ones, as many,
are biased alike. So each of many splits draws, patient by patient, a half of the real
volumes as reference, compares it with as many synthetic ones, and with the other real
half: the value, and the floor that it is read against. What differs between splits is
also the uncertainty: halves drawn without replacement are a bootstrap over patients in
which nobody comes twice (Shao & Wu 1989, the jackknife that leaves out half), which a
distance of neighbours or an unbiased estimate needs. For what is the mean over pairs of
patients the spread of halves of N is the error of the mean over all splits.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from ctflow_fed.errors import SettingsError
from ctflow_fed.evaluation.scores import COVERAGE, Interval
from ctflow_fed.seeds import derive_seed

__all__ = ["LEAST_PATIENTS", "Halves", "Places", "band", "draw_halves", "interval_of"]

LEAST_PATIENTS = 4
"""On each side: two make a half."""

Places = Int64[np.ndarray, " _"]
"""Where the volumes of a half stand in their list."""

Statistic = Callable[[Places, Places], float]


@dataclass(frozen=True, eq=False)
class Halves:
    """What is drawn: a row of places for each split.

    ``reference`` and ``other`` are halves of the real volumes that share no patient,
    ``synthetic`` a half of the synthetic ones.
    """

    reference: Int64[np.ndarray, "splits n"]
    other: Int64[np.ndarray, "splits n"]
    synthetic: Int64[np.ndarray, "splits n"]

    @property
    def n(self) -> int:
        """Volumes, each of another patient, on each side of a comparison."""
        return int(self.reference.shape[1])


def draw_halves(
    real: Sequence[str], synthetic: Sequence[str], *, splits: int, seed: int
) -> Halves:
    """Draw halves of two lists of volumes, of which the patients are given.

    Of the side with more patients, as many as the other has are chosen by lot. Each
    split takes one volume of a patient.

    Raises ``SettingsError`` where a side has fewer than four patients.
    """
    count = min(len(set(real)), len(set(synthetic)))
    if count < LEAST_PATIENTS:
        raise SettingsError(
            f"expected volumes of {LEAST_PATIENTS} or more patients on both sides, got "
            f"{len(set(real))} real and {len(set(synthetic))} synthetic; add volumes"
        )
    half = count // 2
    own = _orders(real, count, splits, derive_seed("real halves", seed))
    drawn = _orders(synthetic, count, splits, derive_seed("synthetic halves", seed))
    return Halves(own[:, :half], own[:, half : 2 * half], drawn[:, :half])


def interval_of(
    values: Float64[np.ndarray, " splits"],
    limits: tuple[float, float] = (-math.inf, math.inf),
) -> Interval:
    """Return the mean over splits and its 95 % interval, within what it can be.

    The quantiles are mirrored at the mean (the basic bootstrap), because they are those
    of the error, not of the truth.
    """
    mean = float(values.mean())
    low, high = np.quantile(values, COVERAGE)
    least, most = limits
    return Interval(
        mean, max(least, float(2 * mean - high)), min(most, float(2 * mean - low))
    )


def band(values: Float64[np.ndarray, " splits"]) -> Interval:
    """Return the mean over splits and where 95 % of single splits lie."""
    low, high = np.quantile(values, COVERAGE)
    return Interval(float(values.mean()), float(low), float(high))


def _orders(
    patients: Sequence[str], count: int, splits: int, seed: int
) -> Int64[np.ndarray, "splits count"]:
    """Return ``count`` patients in random order for each split, one volume of each."""
    of_patient: dict[str, list[int]] = {}
    for place, name in enumerate(patients):
        of_patient.setdefault(name, []).append(place)
    volumes = list(of_patient.values())
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(volumes))[:count]
    rows = [
        [rng.choice(volumes[number]) for number in rng.permutation(chosen)]
        for _ in range(splits)
    ]
    return np.array(rows, np.int64)
