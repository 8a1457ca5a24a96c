"""What the sites send, made one: means by slices, and means that few can move.

Values are added in the order of the sites' names and in float64, so that the result
does not depend on who answered first.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from ctflow_fed.errors import UpdateError
from ctflow_fed.federation.arrays import Arrays, spans_of

__all__ = [
    "coordinate_median",
    "federated_average",
    "shares_of",
    "trimmed_mean",
    "weighted_mean",
]

TRIMMED = 0.2
"""The part of the sites that a trimmed mean leaves out at either end."""


def federated_average(
    updates: Mapping[str, Arrays], shares: Mapping[str, float]
) -> dict[str, NDArray[np.float32]]:
    """Return ``sum_k p_k w_k`` over the sites k with shares p (FedAvg, 1602.05629)."""
    ordered = [shares[site] for site in sorted(updates)]

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        total = np.zeros(values.shape[1])
        for share, row in zip(ordered, values, strict=True):
            total += np.multiply(row, share, out=row)
        return total

    return _by_coordinate(updates, mean) if updates else {}


def trimmed_mean(
    updates: Mapping[str, Arrays], shares: Mapping[str, float]
) -> dict[str, NDArray[np.float32]]:
    """Return the mean of each coordinate without its extremes (1803.01498, Def. 2).

    A fifth of the sites, and at least one where there are three, is left out at either
    end. Every site counts the same, whatever its share.
    """
    cut = min(math.ceil(TRIMMED * len(shares)), (len(shares) - 1) // 2)

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        kept = np.sort(values, axis=0)[cut : len(values) - cut]
        return np.asarray(kept.mean(axis=0))

    return _by_coordinate(updates, mean)


def coordinate_median(
    updates: Mapping[str, Arrays], shares: Mapping[str, float]
) -> dict[str, NDArray[np.float32]]:
    """Return the median of each coordinate (1803.01498, Def. 1).

    Every site counts the same, whatever its share.
    """
    return _by_coordinate(updates, lambda values: np.asarray(np.median(values, axis=0)))


def shares_of(slices: Mapping[str, int], largest: float = 1.0) -> dict[str, float]:
    """Return the share of each site, by its slices and of at most ``largest``.

    What is taken from a site above the cap goes to the others, by their slices. Where
    the cap is less than one site in n, all n have the same share.
    """
    shares = _shares(slices)
    largest = max(largest, 1 / len(shares))
    if max(shares.values()) <= largest:
        return shares
    left, rest = 1.0, sum(slices.values())
    for site in sorted(slices, key=lambda each: (-slices[each], each)):
        shares[site] = min(largest, left * slices[site] / rest) if rest else 0.0
        left -= shares[site]
        rest -= slices[site]
    return shares


def weighted_mean(values: Mapping[str, float], shares: Mapping[str, float]) -> float:
    """Return the mean of one number a site, by the sites' shares."""
    return math.fsum(shares[site] * values[site] for site in sorted(values))


def _shares(slices: Mapping[str, int]) -> dict[str, float]:
    """Return the share of each site; no slices at all raises ``UpdateError``."""
    total = sum(slices.values())
    if not slices or min(slices.values()) < 0 or total == 0:
        raise UpdateError(
            "expected at least one site with slices to train on, got none; "
            "take studies in at a site"
        )
    return {site: slices[site] / total for site in sorted(slices)}


def _by_coordinate(
    updates: Mapping[str, Arrays],
    reduce: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> dict[str, NDArray[np.float32]]:
    """Reduce the sites' values of each array, stacked as [site, value] in pieces."""
    sites = sorted(updates)
    reduced: dict[str, NDArray[np.float32]] = {}
    for name, first in updates[sites[0]].items():
        flat = [updates[site][name].reshape(-1) for site in sites]
        whole = np.empty(first.size, np.float32)
        for span in spans_of(first.size):
            whole[span] = reduce(np.stack([e[span] for e in flat], dtype=np.float64))
        reduced[name] = whole.reshape(first.shape)
    return reduced
