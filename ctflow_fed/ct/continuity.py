"""Whether a volume runs on from slice to slice and from end to end, as anatomy does."""

from dataclasses import dataclass

import numpy as np

from ctflow_fed.ct.volume import CTVolume

__all__ = ["Continuity", "continuity_of"]

PIXELS = 128
"""About how many pixels a side are looked at."""

WINDOW_HU = (-1000, 1000)

END = 0.15
"""The share of the slices that is an end, as in FramePack's start-end contrast."""


@dataclass(frozen=True)
class Continuity:
    """How the slices of a volume follow one another.

    ``jump`` is the largest mean difference of two neighbouring slices, ``freeze`` the
    smallest, both over the median one: a seam jumps, a slice that is repeated freezes.
    ``contrast_hu`` is the mean HU of the top end less that of the lowest, ``grain`` the
    noise (mean absolute Laplacian) of the top end over that of the lowest: what drifts
    in either grows along the volume.
    """

    jump: float
    freeze: float
    contrast_hu: float
    grain: float


def continuity_of(volume: CTVolume) -> Continuity:
    """Measure a volume of two slices or more; one slice follows nothing."""
    every = max(1, min(volume.hu.shape[1:]) // PIXELS)
    hu = volume.hu[:, ::every, ::every].clip(*WINDOW_HU).astype(np.float32)
    means, grains = hu.mean((1, 2)), _grain(hu)
    jumps = np.abs(np.diff(hu, axis=0)).mean((1, 2)) if len(hu) > 1 else np.ones(1)
    usual = max(float(np.median(jumps)), 1e-3)
    end = max(1, round(END * len(hu)))
    return Continuity(
        jump=float(jumps.max()) / usual,
        freeze=float(jumps.min()) / usual,
        contrast_hu=float(means[-end:].mean() - means[:end].mean()),
        grain=float(grains[-end:].mean()) / max(float(grains[:end].mean()), 1e-3),
    )


def _grain(hu: np.ndarray) -> np.ndarray:
    """Return the mean absolute Laplacian of every slice."""
    middle = 4 * hu[:, 1:-1, 1:-1]
    across = hu[:, 1:-1, :-2] + hu[:, 1:-1, 2:]
    along = hu[:, :-2, 1:-1] + hu[:, 2:, 1:-1]
    grain: np.ndarray = np.abs(middle - across - along).mean((1, 2))
    return grain
