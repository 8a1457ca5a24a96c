"""Histograms of HU, and how far two lie apart within a tissue."""

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from ctflow_fed.ct.codec_error import TISSUES
from ctflow_fed.shapes import HU

__all__ = ["PARTS", "histogram_of", "wasserstein_distance"]

BIN_HU = 5
LOWEST, HIGHEST = -1000, 1000

PARTS = {"all": (LOWEST, HIGHEST), **TISSUES}
"""The HU of all that is compared and of each tissue, from and below."""

Histogram = Float64[np.ndarray, " bins"]


def histogram_of(hu: HU) -> Tensor:
    """Count the HU of a volume in bins of 5 HU from -1000 to 1000, float64.

    What lies beyond, padding of -1024 too, is left out; the counts sum to 1.
    """
    inside = hu[(hu >= LOWEST) & (hu < HIGHEST)].astype(np.int64)
    counts = np.bincount(
        (inside - LOWEST) // BIN_HU, minlength=(HIGHEST - LOWEST) // BIN_HU
    )
    return torch.from_numpy(counts / max(1, counts.sum()))


def wasserstein_distance(first: Histogram, second: Histogram, part: str) -> float:
    """Return the 1-Wasserstein distance, in HU, of two histograms within a tissue.

    Each is taken as a distribution of its own there: how much of the tissue there is
    does not enter. NaN where one has nothing of it.
    """
    low, high = ((edge - LOWEST) // BIN_HU for edge in PARTS[part])
    one, other = first[low:high], second[low:high]
    if one.sum() == 0 or other.sum() == 0:
        return float("nan")
    gap = np.cumsum(one / one.sum()) - np.cumsum(other / other.sum())
    return float(np.abs(gap[:-1]).sum() * BIN_HU)
