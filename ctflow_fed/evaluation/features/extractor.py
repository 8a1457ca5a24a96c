"""What turns slices or volumes into vectors, and how CT is brought to it."""

import math
from collections.abc import Iterator, Sequence
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate, pad

from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.errors import VolumeError
from ctflow_fed.shapes import Slices

__all__ = [
    "PLANES",
    "WINDOWS",
    "FeatureExtractor",
    "fitted",
    "isotropic",
    "planes",
    "refuse_large",
    "windowed",
]

WINDOWS = {
    "lung": (-1350.0, 150.0),
    "mediastinal": (-160.0, 240.0),
    "bone": (-500.0, 1300.0),
}
"""The HU that become 0 and 1 in each window."""

PLANES = ("axial", "coronal", "sagittal")
"""The planes of a canonical volume; its axes are slices, rows, columns."""

MOST_VOXELS = 2**28
"""Of a grid of floats: 600 mm along each axis at 1 mm is 0.8 of that."""

CENTRE = 0.8
"""Slices are taken from this middle part of an axis: beyond it is air or table."""


@runtime_checkable
class FeatureExtractor(Protocol):
    """Images -> vectors.

    Two extractors of one ``extractor_id`` give the same vectors. ``axes`` is 2 for an
    extractor of slices and 3 for one of volumes; ``spacing_mm`` is the isotropic grid
    that volumes are brought to before they, or their slices, are given to it.
    """

    @property
    def name(self) -> str:
        """What to call it in a table."""
        ...

    @property
    def extractor_id(self) -> str:
        """What the vectors depend on, as a digest."""
        ...

    @property
    def pretrained(self) -> bool:
        """Whether it has learnt what it sees from images."""
        ...

    @property
    def axes(self) -> Literal[2, 3]:
        """Whether an image is a slice or a volume."""
        ...

    @property
    def spacing_mm(self) -> float:
        """The distance of voxels, along every axis, that it is made for."""
        ...

    def extract(
        self, images: Float[Tensor, "images ..."]
    ) -> Float[Tensor, "images features"]:
        """Return a vector for every image; a window of HU is 0..1 in it."""
        ...


def isotropic(volume: CTVolume, spacing_mm: float) -> Slices:
    """Return the HU of a volume on a grid of ``spacing_mm`` along every axis.

    Linear and antialiased, in-plane first; the field of view stays what it is. Raises
    ``VolumeError`` where that grid would be larger than any patient.
    """
    sides = [
        max(8, round(side * mm / spacing_mm))
        for side, mm in zip(volume.hu.shape, volume.spacing, strict=True)
    ]
    refuse_large(sides)
    parts = torch.from_numpy(volume.hu).split(16)  # few slices as floats at a time
    flat = torch.cat([_resized(part.float(), (sides[1], sides[2])) for part in parts])
    upright = _resized(flat.transpose(0, 1), (sides[0], sides[2]))
    return upright.transpose(0, 1).contiguous()


def refuse_large(sides: Sequence[int]) -> None:
    """Raise ``VolumeError`` for a grid that is larger than any patient."""
    if math.prod(sides) > MOST_VOXELS:
        raise VolumeError(
            f"expected a volume of at most {MOST_VOXELS} voxels of an extractor, got a "
            "larger one; check its spacing"
        )


def windowed(hu: Slices, window: str) -> Slices:
    """Return HU of a window as 0..1; what lies beyond is clipped."""
    low, high = WINDOWS[window]
    return ((hu - low) / (high - low)).clamp(0, 1)


def planes(image: Slices, count: int) -> Iterator[tuple[str, Slices]]:
    """Yield ``count`` slices of each plane, evenly over its middle part.

    A volume with fewer slices than that gives some twice.
    """
    for axis, plane in enumerate(PLANES):
        length = image.shape[axis]
        margin = (1 - CENTRE) / 2 * (length - 1)
        at = torch.linspace(margin, length - 1 - margin, count).round().long()
        yield plane, image.index_select(axis, at).movedim(axis, 0)


def fitted(image: Slices, shape: tuple[int, int, int]) -> Float[Tensor, "_ _ _"]:
    """Cut a volume to a shape, or fill it up with zeros, about its middle."""
    for axis, length in enumerate(shape):
        spare = image.shape[axis] - length
        if spare > 0:
            image = image.narrow(axis, spare // 2, length)
    short = [length - side for length, side in zip(shape, image.shape, strict=True)]
    around = [(less // 2, less - less // 2) for less in reversed(short)]
    return pad(image, [side for pair in around for side in pair])


def _resized(
    images: Slices, size: tuple[int, int]
) -> Float[Tensor, "slices down across"]:
    if images.shape[1:] == size:
        return images
    return interpolate(
        images[:, None], size, mode="bilinear", antialias=True, align_corners=False
    )[:, 0]
