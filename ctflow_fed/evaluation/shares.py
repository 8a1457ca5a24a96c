"""A share of a small number, with its interval."""

import math

from ctflow_fed.evaluation.scores import Interval

__all__ = ["share"]

Z = 1.959964
"""The normal deviate of a 95 % interval."""


def share(hits: int, of: int) -> Interval:
    """Return ``hits / of`` and its 95 % interval (Wilson, 1927).

    Unlike the normal one it is no point where all or none are hit.
    """
    p, spread = hits / of, Z * Z / of
    middle = (p + spread / 2) / (1 + spread)
    half = math.sqrt(spread * (p * (1 - p) + spread / 4)) / (1 + spread)
    return Interval(p, max(0.0, middle - half), min(1.0, middle + half))
