"""What is measured on synthetic volumes; every figure beside that of real ones."""

from collections.abc import Sequence

import numpy as np
import torch
from torchmetrics.functional.classification import binary_auroc

from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.shapes import HU


def aurocs(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return the AUROC of each finding that some volumes have and some have not."""
    return {
        name: float(
            binary_auroc(
                torch.from_numpy(logits[:, place]),
                torch.from_numpy(labels[:, place].astype(int)),
            )
        )
        for place, name in enumerate(FINDINGS)
        if 0 < labels[:, place].sum() < len(labels)
    }


def height_profile(volumes: Sequence[HU], points: int = 20) -> np.ndarray:
    """Return the mean HU of each volume at heights from its lowest to highest slice."""
    at = np.linspace(0, 1, points)
    rows = []
    for volume in volumes:
        means = volume.mean((1, 2), dtype=np.float64)
        rows.append(np.interp(at, np.linspace(0, 1, len(means)), means))
    return np.stack(rows)


def drift(drawn: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """Compare profiles over height with the real 5-95 % band.

    ``inside`` is the share of heights where the mean of the drawn volumes lies in the
    band; ``contrast`` the mean of the last 15 % of a volume less that of the first,
    ``contrast_low`` and ``contrast_high`` the real band of it.
    """
    low, high = np.quantile(real, [0.05, 0.95], axis=0)
    mean = drawn.mean(0)
    contrasts = [_contrast(each) for each in (drawn, real)]
    bounds = np.quantile(contrasts[1], [0.05, 0.95])
    return {
        "inside": float(((mean >= low) & (mean <= high)).mean()),
        "largest_difference": float(np.abs(mean - real.mean(0)).max()),
        "contrast": float(contrasts[0].mean()),
        "contrast_low": float(bounds[0]),
        "contrast_high": float(bounds[1]),
    }


def _contrast(profiles: np.ndarray) -> np.ndarray:
    part = max(1, round(0.15 * profiles.shape[1]))
    difference: np.ndarray = profiles[:, -part:].mean(1) - profiles[:, :part].mean(1)
    return difference
