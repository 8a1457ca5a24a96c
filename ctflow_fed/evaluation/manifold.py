"""Fidelity and variety by nearest neighbours and by a kernel's spectrum."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

__all__ = ["Neighbourhoods", "neighbourhoods", "vendi_score"]

Distances = Float64[np.ndarray, "_ _"]


class Neighbourhoods(NamedTuple):
    """Precision and recall (Kynkaanniemi 2019), density and coverage (Naeem 2020)."""

    precision: float
    recall: float
    density: float
    coverage: float


def neighbourhoods(
    real: Distances, synthetic: Distances, across: Distances, nearest: int
) -> Neighbourhoods:
    """Compare two sets by the balls that reach to each item's ``nearest``-th neighbour.

    ``real`` and ``synthetic`` are distances within the sets, ``across`` those from real
    to synthetic items; squared ones do as well. Each set has more than ``nearest``
    items.
    """
    real_radius = np.partition(real, nearest, axis=1)[:, nearest]  # 0 is to itself
    synthetic_radius = np.partition(synthetic, nearest, axis=1)[:, nearest]
    inside = across < real_radius[:, None]
    return Neighbourhoods(
        precision=float(inside.any(0).mean()),
        recall=float((across < synthetic_radius[None]).any(1).mean()),
        density=float(inside.sum(0).mean() / nearest),
        coverage=float((across.min(1) < real_radius).mean()),
    )


def vendi_score(kernel: Float64[np.ndarray, "items items"]) -> float:
    """Return how many different items a set holds in effect (Friedman & Dieng 2023).

    ``kernel`` has ones on its diagonal; the score is 1 where all items are alike and
    their number where none is like another.
    """
    shares = np.linalg.eigvalsh(kernel / len(kernel))
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))
