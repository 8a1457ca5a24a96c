"""What a reader can be trusted with, as held-out scans have shown."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ctflow_fed.ct.labels import FINDINGS

__all__ = ["FEWEST", "READABLE", "Calibration", "calibrated"]

READABLE = 0.8
"""The AUROC on held-out scans from which a finding counts as read."""

FEWEST = 5
"""Held-out scans with a finding, and without it, below which nobody knows."""

MISSED = 0.1
"""The share of scans with a finding that its threshold lets go."""


@dataclass(frozen=True)
class Calibration:
    """How well a finding is read, and the logit that 90 % of scans with it reach."""

    auroc: float
    threshold: float


def calibrated(logits: np.ndarray, labels: np.ndarray) -> dict[str, Calibration]:
    """Return what held-out scans show of each finding that can be read.

    ``logits`` and ``labels`` are ``[scans, 18]``.
    """
    found = {}
    for place, name in enumerate(FINDINGS):
        present = labels[:, place] > 0.5
        with_it, without = logits[present, place], logits[~present, place]
        if min(len(with_it), len(without)) < FEWEST:
            continue
        auroc = _auroc(with_it, without)
        if auroc >= READABLE:
            found[name] = Calibration(auroc, float(np.quantile(with_it, MISSED)))
    return found


def from_json(value: object) -> dict[str, Calibration]:
    """Check and read calibrations; anything unexpected raises ``ValueError``."""
    if not isinstance(value, Mapping) or not set(value) <= set(FINDINGS):
        raise ValueError
    return {name: _calibration(value[name]) for name in FINDINGS if name in value}


def _calibration(value: Any) -> Calibration:  # noqa: ANN401  # of a file
    if not isinstance(value, dict) or set(value) != {"auroc", "threshold"}:
        raise ValueError
    if not all(type(each) is float and np.isfinite(each) for each in value.values()):
        raise ValueError
    return Calibration(**value)


def _auroc(with_it: np.ndarray, without: np.ndarray) -> float:
    """Return the share of pairs that are in the right order; a tie is half."""
    gap = with_it[:, None] - without[None, :]
    return float(((gap > 0) + 0.5 * (gap == 0)).mean())
