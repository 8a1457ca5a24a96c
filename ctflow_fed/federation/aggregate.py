"""FedAvg (arXiv 1602.05629): the mean of the sites' weights, by their slices."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ctflow_fed.errors import UpdateError
from ctflow_fed.federation.payload import Arrays

__all__ = ["federated_average", "weighted_mean"]


def federated_average(
    updates: Mapping[str, Arrays], slices: Mapping[str, int]
) -> dict[str, NDArray[np.float32]]:
    """Return ``sum_k n_k w_k / sum_k n_k`` over the sites k.

    The sites are added in the order of their names and in float64, so that the result
    does not depend on who answered first.
    """
    shares = _shares({site: slices[site] for site in sorted(updates)})
    first = next(iter(updates.values()), {})
    average: dict[str, NDArray[np.float32]] = {}
    for name, value in first.items():
        total = np.zeros(value.shape, np.float64)
        for site, share in shares.items():
            total += share * updates[site][name].astype(np.float64)
        average[name] = total.astype(np.float32)
    return average


def weighted_mean(values: Mapping[str, float], slices: Mapping[str, int]) -> float:
    """Return the mean of one number a site, by the sites' slices."""
    shares = _shares({site: slices[site] for site in values})
    return math.fsum(shares[site] * values[site] for site in sorted(values))


def _shares(slices: Mapping[str, int]) -> dict[str, float]:
    """Return the share of each site; no slices at all raises ``UpdateError``."""
    total = sum(slices.values())
    if not slices or min(slices.values()) < 0 or total == 0:
        raise UpdateError(
            "expected at least one site with slices to train on, got none; "
            "take studies in at a site"
        )
    return {site: count / total for site, count in slices.items()}
