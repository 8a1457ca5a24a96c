"""How alike the volumes of one set are among themselves."""

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool3d

from ctflow_fed.errors import MissingExtraError
from ctflow_fed.evaluation.features import windowed
from ctflow_fed.shapes import Slices

__all__ = ["SIDE", "alikeness", "mean_alikeness", "thumbnail"]

SIDE = 32
"""Voxels of a thumbnail along each axis: three scales fit a window of 4 voxels."""

WEIGHTS = (0.0448, 0.2856, 0.3001)
"""Those of the first three scales of MS-SSIM (Wang et al. 2003)."""

PARTNERS = 3
AT_ONCE = 16


def thumbnail(hu: Slices) -> Tensor:
    """Return the lung window of a volume, resized to 32 voxels a side, float16."""
    image = windowed(hu, "lung")[None, None]
    return adaptive_avg_pool3d(image, SIDE)[0, 0].half()


def alikeness(
    thumbnails: Float[Tensor, "volumes x y z"],
) -> Float64[np.ndarray, "volumes volumes"]:
    """Return the MS-SSIM of pairs; NaN where it was not computed.

    Each volume has six partners, those that stand up to three places beside it in the
    list, round its end.
    """
    try:
        from monai.metrics.regression import compute_ms_ssim
    except ImportError as error:
        raise MissingExtraError("monai", "evaluation") from error
    count = len(thumbnails)
    pairs = [(i, (i + k) % count) for k in range(1, PARTNERS + 1) for i in range(count)]
    table = np.full((count, count), np.nan)
    for start in range(0, len(pairs), AT_ONCE):
        first, second = np.array(pairs[start : start + AT_ONCE]).T
        values = compute_ms_ssim(
            thumbnails[torch.from_numpy(first)][:, None].float(),
            thumbnails[torch.from_numpy(second)][:, None].float(),
            spatial_dims=3,
            kernel_size=4,
            weights=WEIGHTS,
        )[:, 0].numpy()
        table[first, second] = table[second, first] = values
    np.fill_diagonal(table, np.nan)
    return table


def mean_alikeness(table: Float64[np.ndarray, "volumes volumes"]) -> float:
    """Return the mean over the pairs that were computed; NaN where there is none."""
    return float(np.nanmean(table)) if np.isfinite(table).any() else float("nan")
