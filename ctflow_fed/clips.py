"""How a volume is cut into clips, and what is known about each clip.

A **clip** is 16 slices that are drawn together; its **context** is the clip below it.
As in CTFlow, black slices lie below a volume and white slices above it: the first
clip has a black context, and what a last clip holds beyond the end is white.
"""

import torch

from ctflow_fed.shapes import Geometry

__all__ = ["BLACK_HU", "CLIP_SLICES", "QUANTITIES", "WHITE_HU", "clip_geometry"]

CLIP_SLICES = 16
"""Slices that are drawn together."""

BLACK_HU = -1000.0
"""What lies below a volume."""

WHITE_HU = 1000.0
"""What lies above a volume."""

QUANTITIES = 4
"""Numbers that place a slice: height, fraction, slice spacing, number of slices."""


def clip_geometry(start: int, slices: int, spacing_mm: float) -> Geometry:
    """Place the 16 slices from ``start`` in a volume of ``slices`` slices.

    Returns ``[1, 16, 4]``: height above the lowest slice (in 300 mm), fraction of the
    way from the lowest to the highest slice, slice spacing (in 5 mm), number of slices
    (in 256); all of order one. Slices beyond the end have a fraction above one.
    """
    index = torch.arange(start, start + CLIP_SLICES, dtype=torch.float32)
    height = index * spacing_mm / 300
    fraction = index / max(slices - 1, 1)
    spacing = torch.full_like(index, spacing_mm / 5)
    length = torch.full_like(index, slices / 256)
    return torch.stack([height, fraction, spacing, length], dim=-1)[None]
