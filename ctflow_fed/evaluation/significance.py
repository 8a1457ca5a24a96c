"""Whether two classifiers differ on one finding, and on which of many findings."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

__all__ = ["Difference", "delong", "holm"]


@dataclass(frozen=True)
class Difference:
    """The AUROC of one classifier minus that of another on the same studies.

    ``error`` is its standard error, ``p`` the chance of a larger one if there is none.
    """

    value: float
    error: float
    p: float


def delong(
    first: Float64[np.ndarray, " studies"],
    second: Float64[np.ndarray, " studies"],
    present: Bool[np.ndarray, " studies"],
) -> Difference:
    """Compare two scores of one finding (DeLong et al., Biometrics 44, 1988).

    Studies count as independent; there must be two with the finding and two without.
    """
    of_present, of_absent = zip(
        *(_placements(scores, present) for scores in (first, second)), strict=True
    )
    value = float(np.mean(of_present[0]) - np.mean(of_present[1]))
    error = math.sqrt(_variance(of_present) + _variance(of_absent))
    return Difference(value, error, _two_sided(value, error))


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values that hold for all tests together (Holm, 1979).

    Those below 0.05 are significant; no assumption on how the tests depend is made.
    """
    order = np.argsort(p, kind="stable")
    left = len(p) - np.arange(len(p))
    raised = np.minimum(1.0, np.maximum.accumulate(np.asarray(p)[order] * left))
    adjusted = np.empty(len(p))
    adjusted[order] = raised
    return [float(each) for each in adjusted]


def _placements(
    scores: Float64[np.ndarray, " studies"], present: Bool[np.ndarray, " studies"]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of the other kind that each study is on the right side of."""
    gap = scores[present][:, None] - scores[~present][None, :]
    right = (gap > 0) + 0.5 * (gap == 0)
    return right.mean(1), right.mean(0)


def _variance(placements: tuple[np.ndarray, ...]) -> float:
    """Return the variance of the mean of the difference of two placements."""
    difference = placements[0] - placements[1]
    return float(difference.var(ddof=1) / len(difference))


def _two_sided(value: float, error: float) -> float:
    if error == 0:
        return 1.0 if value == 0 else 0.0
    return math.erfc(abs(value) / error / math.sqrt(2))
