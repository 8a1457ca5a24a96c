"""Updates as whole numbers modulo 2^32, in which sums are exact."""

import numpy as np
from numpy.typing import NDArray

from ctflow_fed.errors import UpdateError
from ctflow_fed.federation.secure.terms import Terms

__all__ = ["dequantise", "quantise", "steps_per_unit"]


def steps_per_unit(terms: Terms) -> float:
    """Return how many steps of the grid make a difference of 1.

    The shares make at most 1, so the sum of all sites is within the bound, and 31 bits
    hold it whatever the number of sites. A site adds at most half a step of rounding,
    and the shares are off by what floating point makes of them.
    """
    return (2**31 * (1 - 1e-5) - len(terms.shares)) / terms.bound


def quantise(value: NDArray[np.float32], site: str, terms: Terms) -> NDArray[np.uint32]:
    """Return the share of a site in the mean, clipped to the bound, on the grid.

    It is rounded to the nearest step; numbers that are not finite raise
    ``UpdateError``.
    """
    if not np.isfinite(value).all():
        raise UpdateError(
            "expected finite numbers in the update, got others; "
            "lower the learning rate or look at the site's data"
        )
    clipped = np.clip(value, -terms.bound, terms.bound).astype(np.float64)
    clipped *= terms.shares[site] * steps_per_unit(terms)
    return np.asarray(np.rint(clipped)).astype(np.int32).view(np.uint32)


def dequantise(
    total: NDArray[np.uint32], share: float, terms: Terms
) -> NDArray[np.float32]:
    """Return the mean that a sum on the grid is, of sites with ``share`` in all."""
    signed = np.asarray(total).view(np.int32).astype(np.float64)
    return np.asarray(signed / (share * steps_per_unit(terms))).astype(np.float32)
