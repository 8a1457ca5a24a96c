"""From the positions of slices to one regular grid, or a refusal.

A grid is regular when no voxel lies elsewhere than its affine says: by more than a
tenth of the slice spacing along the normal (positions with one decimal at 0.625 mm
miss by 8 %, those around a missing slice by half a spacing), or by more than half a
pixel across it (a tilt of 1 degree moves 30 slices of 1 mm by 0.5 mm).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from ctflow_fed.errors import VolumeError
from ctflow_fed.shapes import Affine

__all__ = ["SliceGrid", "regular_grid"]

ALONG_NORMAL = 0.1
"""How far a slice may lie from its place, in slice spacings."""

ACROSS_NORMAL = 0.5
"""How far a slice may lie from its place, in pixels."""

DUPLICATE_MM = 1e-3
"""Slices nearer than this are the same slice."""

Positions = Float64[np.ndarray, "slices 3"]
"""The centre of each slice's first pixel, LPS millimetres."""

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class SliceGrid:
    """The ``order`` in which slices are stacked, and the ``affine`` of the stack.

    ``affine @ (slice, row, column, 1)`` is a point in RAS millimetres.
    """

    order: tuple[int, ...]
    affine: Affine


def regular_grid(
    orientation: Sequence[float],
    pixel_spacing: Sequence[float],
    positions: Positions,
) -> SliceGrid:
    """Order slices along their normal and place them, or raise ``VolumeError``."""
    along_row, along_column = _directions(orientation)
    normal = np.cross(along_row, along_column)
    distances = positions @ normal
    order = np.argsort(distances, kind="stable")
    _refuse_few_or_doubled(distances[order])
    step = (distances[order[-1]] - distances[order[0]]) / (len(order) - 1)
    offsets = positions[order] - positions[order[0]]
    _refuse_tilt(offsets - np.outer(offsets @ normal, normal), min(pixel_spacing))
    _refuse_gaps(distances[order], step)
    row_step, column_step = pixel_spacing
    axes = (normal * step, along_column * row_step, along_row * column_step)
    affine = np.eye(4)
    affine[:3] = np.column_stack([*axes, positions[order[0]]])
    return SliceGrid(tuple(order.tolist()), _LPS_TO_RAS @ affine)


def _directions(
    orientation: Sequence[float],
) -> tuple[Float64[np.ndarray, "3"], Float64[np.ndarray, "3"]]:
    """Return unit vectors along a row and, exactly at right angles, along a column."""
    axes = np.array(orientation, np.float64).reshape(2, 3)
    lengths = np.linalg.norm(axes, axis=1)
    if np.abs(lengths - 1).max() > 1e-3 or abs(axes[0] @ axes[1]) > 1e-3:
        raise VolumeError(
            "expected an ImageOrientationPatient of two unit vectors at right angles, "
            "got another; export the series again"
        )
    along_row, leaning = axes / lengths[:, None]
    along_column = leaning - (leaning @ along_row) * along_row
    return along_row, along_column / np.linalg.norm(along_column)


def _refuse_few_or_doubled(distances: Float64[np.ndarray, " slices"]) -> None:
    """Refuse a single slice, and slices at one position."""
    if len(distances) < 2:
        raise VolumeError(
            "expected a series of at least two slices, got a single one; export the "
            "complete series"
        )
    if np.diff(distances).min() < DUPLICATE_MM:
        raise VolumeError(
            "expected one slice at a position, got several (copies, phases or time "
            "points); export one acquisition alone"
        )


def _refuse_tilt(sideways: Float64[np.ndarray, "slices 3"], pixel_mm: float) -> None:
    """Refuse slices that are shifted within their plane, as a tilted gantry does."""
    if np.linalg.norm(sideways, axis=1).max() > ACROSS_NORMAL * pixel_mm:
        raise VolumeError(
            "expected slices stacked along their normal, got slices shifted sideways "
            "(a tilted gantry); resample the series onto a regular grid first"
        )


def _refuse_gaps(distances: Float64[np.ndarray, " slices"], step: float) -> None:
    """Refuse slices that are not where even spacing would put them."""
    even = distances[0] + step * np.arange(len(distances))
    if np.abs(distances - even).max() > ALONG_NORMAL * step:
        gaps = np.diff(distances)
        raise VolumeError(
            f"expected evenly spaced slices, got gaps of {gaps.min():.4g} to "
            f"{gaps.max():.4g} mm (a missing slice?); export the complete series"
        )
