"""Areas under curves, and how far chance could have moved them.

A bootstrap draws patients, not studies, because two studies of one patient are not
independent. Every arm meets the same draws, so a difference of two arms is paired.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from ctflow_fed.errors import MissingExtraError
from ctflow_fed.seeds import derive_seed

__all__ = [
    "COVERAGE",
    "Draws",
    "Interval",
    "areas",
    "draw_patients",
    "interval",
    "resampled_auroc",
]

Scores = Float64[np.ndarray, "repeats studies findings"]
"""The probability that a classifier gives each finding, one table a repeat."""

Truth = Bool[np.ndarray, "studies findings"]
"""Which findings each study has."""

COVERAGE = (0.025, 0.975)
"""The quantiles of a 95 % interval."""


@dataclass(frozen=True)
class Interval:
    """A number and the 95 % interval that the bootstrap puts around it."""

    value: float
    low: float
    high: float

    @property
    def holds_zero(self) -> bool:
        """Whether zero lies inside: then chance alone explains a difference."""
        return self.low <= 0 <= self.high


@dataclass(frozen=True, eq=False)
class Draws:
    """The resampled worlds: how often each study and which repeats are in each."""

    weights: Float64[np.ndarray, "draws studies"]
    repeats: Int64[np.ndarray, "draws repeats"]


def areas(
    scores: Scores, truth: Truth
) -> tuple[Float64[np.ndarray, " findings"], Float64[np.ndarray, " findings"]]:
    """Return AUROC and AUPRC of every finding, each the mean over the repeats.

    Every finding needs at least one study with it and one without it.
    """
    try:
        from torchmetrics.functional.classification import (
            binary_auroc,
            binary_average_precision,
        )
    except ImportError as error:
        raise MissingExtraError("torchmetrics", "evaluation") from error
    return _each(binary_auroc, scores, truth), _each(
        binary_average_precision, scores, truth
    )


def _each(
    metric: Callable[[Tensor, Tensor], Tensor], scores: Scores, truth: Truth
) -> Float64[np.ndarray, " findings"]:
    """Return the mean of ``metric`` over the repeats, for every finding."""
    target = torch.from_numpy(truth).int()
    tables = torch.from_numpy(scores)
    values = [
        [float(metric(table[:, place], target[:, place])) for table in tables]
        for place in range(truth.shape[1])
    ]
    return np.asarray(np.mean(values, axis=1))


def draw_patients(
    patients: Sequence[str], *, repeats: int, draws: int, seed: int
) -> Draws:
    """Draw patients and repeats with replacement, ``draws`` times."""
    names = sorted(set(patients))
    place = {name: number for number, name in enumerate(names)}
    rng = np.random.default_rng(derive_seed("bootstrap", seed))
    chosen = rng.integers(len(names), size=(draws, len(names)))
    counts = np.zeros((draws, len(names)))
    np.add.at(counts, (np.arange(draws)[:, None], chosen), 1.0)
    of_study = np.array([place[name] for name in patients])
    return Draws(
        weights=counts[:, of_study],
        repeats=rng.integers(repeats, size=(draws, repeats)),
    )


def resampled_auroc(
    scores: Scores, truth: Truth, draws: Draws
) -> Float64[np.ndarray, " draws"]:
    """Return the macro AUROC in every draw.

    A finding that a draw leaves without a study with it, or without one that lacks it,
    is left out of that draw's mean.
    """
    macro = np.stack([_macro_of_repeat(table, truth, draws) for table in scores])
    picked = np.take_along_axis(macro.T, draws.repeats, axis=1)
    return np.asarray(picked.mean(axis=1))


def interval(value: float, resampled: Float64[np.ndarray, " draws"]) -> Interval:
    """Return ``value`` between the 2.5 % and the 97.5 % quantile of the draws."""
    low, high = np.nanquantile(resampled, COVERAGE)
    return Interval(float(value), float(low), float(high))


def _macro_of_repeat(
    table: Float64[np.ndarray, "studies findings"], truth: Truth, draws: Draws
) -> Float64[np.ndarray, " draws"]:
    columns = [
        _weighted_auroc(scores, present, draws.weights)
        for scores, present in zip(table.T, truth.T, strict=True)
    ]
    total = np.nansum(columns, axis=0)
    counted = np.isfinite(columns).sum(axis=0)
    return _ratio(total, counted.astype(float))


def _weighted_auroc(
    scores: Float64[np.ndarray, " studies"],
    present: Bool[np.ndarray, " studies"],
    weights: Float64[np.ndarray, "draws studies"],
) -> Float64[np.ndarray, " draws"]:
    """Return the share of (with, without) pairs in the right order; a tie is half."""
    gap = scores[present][:, None] - scores[~present][None, :]
    right = (gap > 0) + 0.5 * (gap == 0)
    with_it, without_it = weights[:, present], weights[:, ~present]
    won = ((with_it @ right) * without_it).sum(axis=1)
    pairs = with_it.sum(axis=1) * without_it.sum(axis=1)
    return _ratio(won, pairs)


def _ratio(
    part: Float64[np.ndarray, " draws"], whole: Float64[np.ndarray, " draws"]
) -> Float64[np.ndarray, " draws"]:
    """Divide; nothing of nothing is unknown."""
    unknown = np.full_like(part, np.nan)
    return np.asarray(np.divide(part, whole, out=unknown, where=whole > 0))
