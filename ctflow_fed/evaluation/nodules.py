"""What a codec leaves of small nodules that are planted into real lungs."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ctflow_fed.ct.codec import SliceCodec
from ctflow_fed.ct.codec_error import TISSUES, decoded_slices
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.model import default_device
from ctflow_fed.seeds import derive_seed

__all__ = ["DIAMETERS_MM", "contrast_kept"]

DIAMETERS_MM = (4.0, 6.0, 10.0)
"""Guidelines begin to follow solid nodules at 6 mm (Fleischner Society 2017)."""

NODULE_HU = 40.0
"""A solid nodule."""

PLANTED = 8
"""Nodules in a volume at most, one a slice."""

LEAST_PIXELS = 2.0
"""A disc of a smaller diameter is no disc on the grid."""


class _Place(NamedTuple):
    """The slice, row and column of the middle of a nodule."""

    slice: int
    row: int
    col: int


def contrast_kept(codec: SliceCodec, volume: CTVolume, diameter_mm: float) -> float:
    """Return which share of the contrast of planted nodules comes back from a codec.

    Discs of 40 HU with an edge of one pixel are planted in lung, one a slice; the share
    is what they add after the codec over what they added before, within them. NaN where
    the pixels are too coarse for the diameter, or where no lung is wide enough for it.
    """
    pixel_mm = volume.spacing[1]
    radius = diameter_mm / 2 / pixel_mm
    if 2 * radius < LEAST_PIXELS:
        return float("nan")
    places = _places(volume, radius)
    if not places:
        return float("nan")
    plain = torch.from_numpy(volume.hu[[each.slice for each in places]]).float()
    disc = torch.stack([_disc(plain.shape[1:], each, radius) for each in places])
    planted = plain + disc * (NODULE_HU - plain)
    inside = disc > 0.5
    added = (planted - plain)[inside].mean()
    device = default_device().type
    after, before = (decoded_slices(codec, hu, device) for hu in (planted, plain))
    return float((after - before)[inside].mean() / added)


def _places(volume: CTVolume, radius: float) -> list[_Place]:
    """Choose places by lot where lung fills a square of twice the diameter."""
    low, high = TISSUES["lung"]
    lung = ((volume.hu >= low) & (volume.hu < high)).astype(np.float32)
    side = 2 * round(2 * radius) + 1
    if min(lung.shape[1:]) < side:
        return []
    share = avg_pool2d(torch.from_numpy(lung)[:, None], side, stride=1)[:, 0].numpy()
    # Vessels are not lung in HU, and are everywhere in it.
    slices, rows, cols = np.nonzero(share > 0.9)
    rng = np.random.default_rng(derive_seed("nodules", *volume.hu.shape))
    at = rng.permutation(len(slices))
    _, first = np.unique(slices[at], return_index=True)
    chosen = rng.permutation(at[first])[:PLANTED]
    middle = side // 2
    return [
        _Place(int(slices[n]), int(rows[n]) + middle, int(cols[n]) + middle)
        for n in chosen
    ]


def _disc(
    shape: tuple[int, ...], place: _Place, radius: float
) -> Float[Tensor, "rows cols"]:
    """Return how much of each pixel a disc covers, 0 to 1."""
    rows, cols = (torch.arange(side, dtype=torch.float32) for side in shape)
    distance = ((rows - place.row)[:, None] ** 2 + (cols - place.col) ** 2).sqrt()
    return (radius - distance + 0.5).clamp(0, 1)
