"""The scanner: where its voxels lie and how it blurs and grains what it sees."""

from dataclasses import dataclass, replace

import numpy as np

from ctflow_fed.ct.volume import HU_RANGE
from ctflow_fed.errors import SettingsError
from ctflow_fed.shapes import HU, Affine

__all__ = ["COVERAGE_MM", "Scanner"]

COVERAGE_MM = 300.0
"""The length of a chest scan when the slice distance is not given."""


@dataclass(frozen=True)
class Scanner:
    """How a study is acquired.

    Args:
        slices: Number of slices.
        rows: Rows and columns of a slice; slices are square.
        field_mm: Side of the reconstructed square.
        slice_mm: Distance of slices.
        noise_hu: Standard deviation of the noise at the centre of the body.
        sharpness: The kernel: 0 is soft tissue, 1 is lung.
        name: What the scan calls its maker and model.
    """

    slices: int = 60
    rows: int = 128
    field_mm: float = 384.0
    slice_mm: float = 5.0
    noise_hu: float = 14.0
    sharpness: float = 0.4
    name: str = "Phantom"

    def __post_init__(self) -> None:
        if not (1 <= self.slices <= 2048 and 16 <= self.rows <= 1024):
            raise SettingsError("a scan has 1 to 2048 slices of 16 to 1024 rows")
        if not (200 <= self.field_mm <= 600 and 0.2 <= self.slice_mm <= 100):
            raise SettingsError(
                "a field is 200 to 600 mm, a slice distance 0.2 to 100 mm"
            )
        if not (0 <= self.noise_hu <= 200 and 0 <= self.sharpness <= 1):
            raise SettingsError("noise is 0 to 200 HU, sharpness 0 to 1")

    @property
    def pixel_mm(self) -> float:
        """The side of a pixel in mm."""
        return self.field_mm / self.rows

    @property
    def affine(self) -> Affine:
        """Voxel index of the canonical order -> RAS mm; the origin is mid-chest."""
        affine = np.zeros((4, 4))
        affine[2, 0] = self.slice_mm
        affine[1, 1] = -self.pixel_mm
        affine[0, 2] = -self.pixel_mm
        half = (self.rows - 1) / 2 * self.pixel_mm
        affine[:3, 3] = (half, half, -(self.slices - 1) / 2 * self.slice_mm)
        affine[3, 3] = 1
        return affine

    def resized(self, slices: int, rows: int) -> "Scanner":
        """The same scan length and field on another number of voxels."""
        length = self.slices * self.slice_mm
        return replace(self, slices=slices, rows=rows, slice_mm=length / slices)

    def acquire(self, hu: np.ndarray, seed: int) -> HU:
        """Blur and grain a noiseless float32 volume as this scanner would."""
        blur = 0.35 * (1 - self.sharpness)
        seen = hu if blur == 0 else _blurred(hu, blur / 2)
        if self.noise_hu > 0:
            seen = seen + self._noise(hu, seed)
        return np.asarray(np.clip(np.rint(seen), *HU_RANGE), dtype=np.int16)

    def _noise(self, hu: np.ndarray, seed: int) -> np.ndarray:
        """Correlated noise, strongest where the body is thickest."""
        rng = np.random.default_rng(seed)
        white = rng.standard_normal(hu.shape, dtype=np.float32)
        grain = _blurred(white, 0.22 * (1.2 - self.sharpness))
        grain /= grain.std()
        dense = np.clip((hu + 1000) / 1000, 0, 1.6)
        across = dense.mean(axis=2, keepdims=True)
        along = dense.mean(axis=1, keepdims=True)
        level = np.sqrt(0.08 + across * along * 2.2)
        return np.asarray(self.noise_hu * level * grain, dtype=np.float32)


def _blurred(values: np.ndarray, weight: float) -> np.ndarray:
    """Mix every pixel of a slice with its neighbours, ``weight`` to each side."""
    for axis in (1, 2):
        ahead = np.take(values, [0], axis)
        behind = np.take(values, [-1], axis)
        padded = np.concatenate((ahead, values, behind), axis)
        size = values.shape[axis]
        before = padded.take(range(size), axis)
        after = padded.take(range(2, size + 2), axis)
        values = (1 - 2 * weight) * values + weight * (before + after)
    return values.astype(np.float32, copy=False)
