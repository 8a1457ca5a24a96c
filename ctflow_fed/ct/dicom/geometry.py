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

from ctflow_fed.ct.policy import STRICT, IntakePolicy
from ctflow_fed.ct.volume import AIR
from ctflow_fed.errors import VolumeError
from ctflow_fed.shapes import HU, Affine

__all__ = ["SliceGrid", "Straightening", "regular_grid"]

ALONG_NORMAL = 0.1
"""How far a slice may lie from its place, in slice spacings."""

ACROSS_NORMAL = 0.5
"""How far a slice may lie from its place, in pixels."""

DUPLICATE_MM = 1e-3
"""Slices nearer than this are the same slice."""

WIDEST_GAP = 1.5
"""Beyond this multiple of the narrowest gap a slice is missing, not ill placed."""

STEEPEST_TILT_DEGREES = 35.0
"""Gantries tilt by up to 30 degrees."""

Positions = Float64[np.ndarray, "slices 3"]
"""The centre of each slice's first pixel, LPS millimetres."""

Vector = Float64[np.ndarray, "3"]

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Straightening:
    """How an irregular stack becomes a regular one.

    ``heights`` are those of the slices that there are, ``wanted`` those of the slices
    that are made, at the middle row, in mm; a row further back lies ``lean`` mm higher.
    ``notes`` say what is done.
    """

    heights: tuple[float, ...]
    wanted: tuple[float, ...]
    lean: float
    notes: tuple[str, ...]

    def __call__(self, stack: HU) -> HU:
        """Interpolate linearly between slices; what none of them shows becomes air."""
        rows = stack.shape[1]
        hu = np.empty((len(self.wanted), *stack.shape[1:]), np.int16)
        if self.lean == 0:
            return _between(stack, self._places(0.0), hu)
        for row in range(rows):
            places = self._places(((rows - 1) / 2 - row) * self.lean)
            _between(stack[:, row], places, hu[:, row])
        return hu

    def _places(self, shift: float) -> Float64[np.ndarray, " slices"]:
        """Return where the wanted slices lie, counted in the slices that there are."""
        places: np.ndarray = np.interp(
            np.array(self.wanted) + shift,
            self.heights,
            np.arange(len(self.heights)),
            left=np.nan,
            right=np.nan,
        )
        return places


@dataclass(frozen=True)
class SliceGrid:
    """The ``order`` in which slices are stacked, and the ``affine`` of the stack.

    ``affine @ (slice, row, column, 1)`` is a point in RAS millimetres, once the stack
    is straightened where it has to be.
    """

    order: tuple[int, ...]
    affine: Affine
    straightening: Straightening | None = None


def regular_grid(
    orientation: Sequence[float],
    pixel_spacing: Sequence[float],
    size: tuple[int, int],
    positions: Positions,
    policy: IntakePolicy = STRICT,
) -> SliceGrid:
    """Order slices along their normal and place them, or raise ``VolumeError``.

    ``size`` is that of a slice in rows and columns. A tilted or an uneven stack is
    straightened if the policy says so.
    """
    along_row, along_column = _directions(orientation)
    normal = np.cross(along_row, along_column)
    order = np.argsort(positions @ normal, kind="stable")
    stacked = positions[order] - positions[order[0]]
    _refuse_few_or_doubled(stacked @ normal)
    axis = _axis(stacked, normal, along_row, min(pixel_spacing))
    row_mm, column_mm = pixel_spacing
    lean = 0.0 if axis is normal else row_mm * float(along_column @ axis)
    heights = stacked @ axis
    slices, even = _even(heights, policy)
    step = heights[-1] / (slices - 1)
    wanted = step * np.arange(slices)
    notes = []
    if lean:
        notes.append(_tilt_note(along_column @ axis, policy))
    if not even:
        notes.append(f"resampled from uneven gaps to slices {step:.4g} mm apart")
    straightening = Straightening(tuple(heights), tuple(wanted), lean, tuple(notes))
    origin = positions[order[0]] + axis * lean * (size[0] - 1) / 2
    upright = along_column - (along_column @ axis) * axis
    affine = np.eye(4)
    affine[:3] = np.column_stack(
        [axis * step, upright * row_mm, along_row * column_mm, origin]
    )
    return SliceGrid(
        tuple(order.tolist()), _LPS_TO_RAS @ affine, straightening if notes else None
    )


def _between(stack: np.ndarray, places: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Interpolate ``stack`` along its first axis at ``places``; NaN gives air."""
    for plane, place in zip(out, places, strict=True):
        if np.isnan(place):
            plane[...] = AIR
            continue
        below = min(int(place), len(stack) - 2)
        weight = np.float32(place - below)
        plane[...] = np.rint(stack[below] * (1 - weight) + stack[below + 1] * weight)
    return out


def _directions(orientation: Sequence[float]) -> tuple[Vector, Vector]:
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
            "expected one slice at a position, got several (phases or time points, or "
            "shifted in their plane); export one acquisition alone"
        )


def _axis(
    stacked: Positions, normal: Vector, along_row: Vector, pixel_mm: float
) -> Vector:
    """Return the direction in which slices follow each other.

    It is their normal, or that of a table under a tilted gantry, which moves slices
    along their columns; else there is none.
    """
    tolerance = ACROSS_NORMAL * pixel_mm
    sideways = stacked - np.outer(stacked @ normal, normal)
    if np.linalg.norm(sideways, axis=1).max() <= tolerance:
        return normal
    direction = stacked[-1] - (stacked[-1] @ along_row) * along_row
    axis: Vector = direction / np.linalg.norm(direction)
    rest = stacked - np.outer(stacked @ axis, axis)
    steepest = np.cos(np.radians(STEEPEST_TILT_DEGREES))
    if np.linalg.norm(rest, axis=1).max() > tolerance or axis @ normal < steepest:
        raise VolumeError(
            "expected slices stacked along their normal, got slices shifted sideways "
            "one by one; export the series again"
        )
    return axis


def _tilt_note(sine: float, policy: IntakePolicy) -> str:
    """Say that a tilt is corrected, or refuse it."""
    degrees = np.degrees(np.arcsin(abs(sine)))
    if policy.tilt == "refuse":
        raise VolumeError(
            "expected slices stacked along their normal, got slices shifted sideways "
            f"by a tilted gantry ({degrees:.1f} degrees); let the policy correct the "
            "tilt, or leave the study out"
        )
    return f"gantry tilt of {degrees:.1f} degrees corrected by shear"


def _even(
    heights: Float64[np.ndarray, " slices"], policy: IntakePolicy
) -> tuple[int, bool]:
    """Return how many even gaps fit, and whether slices are there already.

    A missing slice is refused whatever the policy: nobody knows what it showed.
    """
    slices = len(heights)
    even = heights[-1] / (slices - 1) * np.arange(slices)
    gaps = np.diff(heights)
    if np.abs(heights - even).max() <= ALONG_NORMAL * gaps.mean():
        return slices, True
    found = f"gaps of {gaps.min():.4g} to {gaps.max():.4g} mm"
    if gaps.max() > WIDEST_GAP * gaps.min():
        raise VolumeError(
            f"expected evenly spaced slices, got {found} (a missing slice?); export "
            "the complete series"
        )
    if policy.uneven == "refuse":
        raise VolumeError(
            f"expected evenly spaced slices, got {found}; let the policy resample "
            "uneven ones, or leave the study out"
        )
    return round(float(heights[-1] / np.median(gaps))) + 1, False
