"""A privacy audit in one run: what an attacker provably found out (arXiv 2305.08846).

Each of many canaries, made-up patients, joins the training with a chance of one half.
Whoever sees what comes of it guesses which of them did. More right guesses than an
epsilon allows refute that epsilon, whatever was claimed.
"""

import numpy as np
from jaxtyping import Bool, Float

from ctflow_fed.errors import MissingExtraError, SettingsError

__all__ = ["audited_epsilon"]

LARGEST = 64.0
"""Bounds are looked for below this."""


def audited_epsilon(
    scores: Float[np.ndarray, " canaries"],
    joined: Bool[np.ndarray, " canaries"],
    *,
    guesses: int,
    delta: float,
    confidence: float = 0.95,
) -> float:
    """Return an epsilon that the training has not kept to at ``delta``.

    A higher score says that a canary seems to have joined. The ``guesses`` lowest and
    highest scores, half of each, are guessed on, and their number must not depend on
    the scores. The truth is larger with the ``confidence`` given; 0 says nothing.
    Raises `MissingExtraError` without scipy.
    """
    if not 2 <= guesses <= len(scores):
        raise SettingsError("guesses must lie between 2 and the number of canaries")
    order, half = np.argsort(scores), guesses // 2
    right = int((~joined[order[:half]]).sum() + joined[order[-half:]].sum())

    def refuted(epsilon: float) -> bool:
        chance = _chance_of(right, 2 * half, len(scores), epsilon, delta)
        return chance < 1 - confidence

    low, high = 0.0, LARGEST
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def _chance_of(
    right: int, guesses: int, canaries: int, epsilon: float, delta: float
) -> float:
    """Bound the chance of so many right guesses under (epsilon, delta) (Theorem 5.2).

    Without delta a guess is right with the chance ``e^epsilon / (1 + e^epsilon)`` at
    most; let ``W`` be the number of those that are. Delta adds
    ``2 m delta max_i P[right - i <= W < right] / i`` for ``m`` canaries.
    """
    try:
        from scipy.stats import binom
    except ImportError:
        raise MissingExtraError("scipy", "privacy") from None
    chance = 1 / (1 + np.exp(-epsilon))
    pure = binom.sf(right - 1, guesses, chance)
    fewer = np.arange(1, right + 1)
    between = np.cumsum(binom.pmf(right - fewer, guesses, chance))
    excess = (between / fewer).max() if right else 0.0
    return float(min(1.0, pure + 2 * canaries * delta * excess))
