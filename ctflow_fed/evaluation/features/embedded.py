"""The embedded extractors: where things lie, and how rough they are at three scales.

They need no download and are the same to the last digits everywhere, for nothing in
them was learnt: they are **not pretrained**, and distances by them are comparable only
with others by them. A vector has two parts. The layout is the mean of each cell of a
coarse grid. The texture is the logarithm of the mean square of Haar details, by scale
and direction: noise, blur, seams and streaks move it.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, adaptive_avg_pool3d

from ctflow_fed.files import digest_of

__all__ = ["HaarSlices", "HaarVolumes"]

LEVELS = 3
LEAST = 1e-5
"""Added to a mean square: 3 thousandths of a window are too little to see."""

SPACING_MM = 4.0
"""Coarse enough for what CPUs train, fine enough for vessels and ribs."""

Images = Float[Tensor, "images ..."]


class HaarSlices:
    """Slices -> 25 numbers: a layout of 4 x 4 and a texture of 3 levels."""

    name = "haar-slices"
    axes: Literal[2, 3] = 2
    pretrained = False
    spacing_mm = SPACING_MM
    grid = 4

    def __init__(self) -> None:
        self.extractor_id = digest_of([self.name, self.grid, LEVELS, LEAST, SPACING_MM])

    def extract(
        self, images: Float[Tensor, "images rows cols"]
    ) -> Float[Tensor, "images features"]:
        """Return a vector for each slice."""
        layout = adaptive_avg_pool2d(images[:, None], self.grid).flatten(1)
        details = [_log_power(part) for parts in _details(images) for part in parts]
        return torch.cat([layout, torch.stack(details, 1)], 1)


class HaarVolumes:
    """Volumes -> 36 numbers: a layout of 3 x 3 x 3 and a texture of 3 levels.

    Its directions are across slices, within them, and both.
    """

    name = "haar-volumes"
    axes: Literal[2, 3] = 3
    pretrained = False
    spacing_mm = SPACING_MM
    grid = 3

    def __init__(self) -> None:
        self.extractor_id = digest_of([self.name, self.grid, LEVELS, LEAST, SPACING_MM])

    def extract(
        self, images: Float[Tensor, "images slices rows cols"]
    ) -> Float[Tensor, "images features"]:
        """Return a vector for each volume."""
        layout = adaptive_avg_pool3d(images[:, None], self.grid).flatten(1)
        details = []
        for parts in _details(images):
            # Bits of the number of a part: 4 across slices, 2 down rows, 1 along them.
            for chosen in ((4,), (1, 2, 3), (5, 6, 7)):
                together = torch.stack([parts[number - 1] for number in chosen], 1)
                details.append(_log_power(together))
        return torch.cat([layout, torch.stack(details, 1)], 1)


def _details(images: Images) -> list[list[Images]]:
    """Return the details of each level, all but the mean of every block of two."""
    levels = []
    for _ in range(LEVELS):
        parts = [images]
        for axis in range(1, images.ndim):
            parts = [half for part in parts for half in _halves(part, axis)]
        images, *rest = parts
        levels.append(rest)
    return levels


def _halves(images: Images, axis: int) -> tuple[Images, Images]:
    """Return means and half differences of neighbours; an odd last one is dropped."""
    if images.shape[axis] < 2:
        return images, torch.zeros_like(images)
    even = images.narrow(axis, 0, images.shape[axis] // 2 * 2)
    first, second = even.unflatten(axis, (-1, 2)).unbind(axis + 1)
    return (first + second) / 2, (first - second) / 2


def _log_power(part: Images) -> Float[Tensor, " images"]:
    return (part.flatten(1).square().mean(1) + LEAST).log10()
