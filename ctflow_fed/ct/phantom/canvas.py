"""A voxel grid in millimetres on which shapes are painted with soft edges."""

from dataclasses import dataclass, field

import numpy as np

from ctflow_fed.ct.phantom.scanner import Scanner
from ctflow_fed.ct.volume import AIR

__all__ = ["Box", "Canvas", "Point", "noise"]

Point = tuple[float, float, float]
"""z (up), y (towards the back), x (towards the patient's left), in mm."""


@dataclass(frozen=True, eq=False)
class Box:
    """A part of the grid: its ``index`` and its open mesh of coordinates in mm."""

    index: tuple[slice, slice, slice]
    z: np.ndarray
    y: np.ndarray
    x: np.ndarray

    @property
    def empty(self) -> bool:
        """Whether no voxel of the grid lies in it."""
        return 0 in (self.z.size, self.y.size, self.x.size)


@dataclass(eq=False)
class Canvas:
    """A float32 volume in HU and the coordinates of its voxels.

    Args:
        scanner: The grid.
        middle_mm: Height in the patient's frame of the middle of the scan.
    """

    scanner: Scanner
    middle_mm: float
    hu: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        scanner = self.scanner
        self.hu = np.full((scanner.slices, scanner.rows, scanner.rows), AIR, np.float32)
        pixels = (np.arange(scanner.rows) - (scanner.rows - 1) / 2) * scanner.pixel_mm
        steps = (
            np.arange(scanner.slices) - (scanner.slices - 1) / 2
        ) * scanner.slice_mm
        self.z = (steps + self.middle_mm).astype(np.float32)
        self.y = self.x = pixels.astype(np.float32)
        self.voxel = (scanner.slice_mm, scanner.pixel_mm, scanner.pixel_mm)
        self.edge = float(np.cbrt(np.prod(self.voxel)))

    def whole(self) -> Box:
        """The whole grid."""
        return self.box((-1e9, -1e9, -1e9), (1e9, 1e9, 1e9))

    def box(self, low: Point, high: Point, margin: float = 0.0) -> Box:
        """The voxels between two corners, and ``margin`` mm more on every side."""
        parts = []
        for axis, lower, upper in zip((self.z, self.y, self.x), low, high, strict=True):
            start = int(np.searchsorted(axis, lower - margin - self.edge))
            stop = int(np.searchsorted(axis, upper + margin + self.edge))
            parts.append(slice(start, stop))
        z, y, x = parts
        return Box(
            (z, y, x),
            self.z[z][:, None, None],
            self.y[y][None, :, None],
            self.x[x][None, None, :],
        )

    def cover(self, distance: np.ndarray) -> np.ndarray:
        """The share of each voxel inside a surface at signed ``distance`` in mm."""
        return np.clip(0.5 - distance / self.edge, 0, 1)

    def thin(self, distance: np.ndarray, half_mm: float, dimensions: int) -> np.ndarray:
        """The share of a voxel taken by something that may be thinner than a voxel.

        ``distance`` is from its middle; a sheet fades with ``dimensions`` 1, a tube
        with 2, a ball with 3, so that its mass is the same at any resolution.
        """
        wide = max(half_mm, 0.5 * self.edge)
        return self.cover(distance - wide) * (half_mm / wide) ** dimensions

    def paint(self, box: Box, share: np.ndarray, hu: float | np.ndarray) -> None:
        """Replace ``share`` of each voxel of ``box`` by ``hu``."""
        view = self.hu[box.index]
        view += share * (hu - view)


def noise(rng: np.random.Generator, box: Box, cell_mm: float) -> np.ndarray:
    """Smooth noise of about unit variance that varies over ``cell_mm``.

    It lives on a periodic lattice in the patient's frame, so it is the same at any
    resolution.
    """
    values = rng.standard_normal((_LATTICE,) * 3, dtype=np.float32)
    for axis, along in enumerate((box.z.ravel(), box.y.ravel(), box.x.ravel())):
        mixed = np.tensordot(_weights(along, cell_mm), values, (1, axis))
        values = np.moveaxis(mixed, 0, axis)
    return 1.6 * values


_LATTICE = 40
"""Cells after which the noise repeats."""


def _weights(along: np.ndarray, cell_mm: float) -> np.ndarray:
    """Smooth interpolation weights ``[points, lattice]``."""
    place = along.astype(np.float64) / cell_mm
    low = np.floor(place)
    part = place - low
    part = part * part * (3 - 2 * part)
    weights = np.zeros((along.size, _LATTICE), np.float32)
    points = np.arange(along.size)
    weights[points, low.astype(int) % _LATTICE] = 1 - part
    weights[points, (low.astype(int) + 1) % _LATTICE] = part
    return weights
