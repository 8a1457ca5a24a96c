"""A CT volume in Hounsfield units, in one canonical order."""

from dataclasses import dataclass, replace

import numpy as np

from ctflow_fed.errors import VolumeError
from ctflow_fed.shapes import HU, Affine

__all__ = [
    "AIR",
    "CANONICAL_AXES",
    "HU_RANGE",
    "MAX_SIDE",
    "MAX_VOXELS",
    "CTVolume",
    "refuse_other_than_hounsfield",
    "shows_air",
    "to_hounsfield",
]

AIR = -1024
"""The HU that stands for everything outside the scanner's field of view."""

HU_RANGE = (AIR, 32767)
"""What a voxel may hold: padding such as -3024 becomes air, the top is int16's."""

CANONICAL_AXES = ("S", "P", "L")
"""Slices run to the patient's head, rows to the back, columns to the left side."""

_TOWARDS_RAS = ((2, 1.0), (1, -1.0), (0, -1.0))
"""The same in RAS coordinates: each axis' coordinate, and whether it grows or falls."""

MAX_SIDE = 4096
"""The most rows, or columns, that a header may claim: twice the finest CT there is."""

MAX_VOXELS = 2**30
"""The most voxels that headers may claim together: 2 GiB of int16."""

SPACING_MM = (0.01, 100.0)
"""The distances of voxels that a CT, or a coarse picture of one, can have."""

MAX_ROTATION_DEGREES = 1.0
"""How far an axis may turn from the patient's; 1 degree is 7 mm across 400 mm."""

MAX_SHEAR = 1e-3
"""The largest cosine between two axes: 0.4 mm of skew across 400 mm."""

SQUARED_TOGETHER = 16
"""Slices that are resized at once, so that memory holds few of them as floats."""

AIR_BELOW = -700
"""Every CT in HU has voxels down to this: air around the patient, in lungs or bowel."""

LEAST_AIR = 1e-3
"""The least share of them; what equals ``AIR`` may be padding and does not count.

Ten real volumes of chest and abdomen, crops among them, hold 0.29 to 0.64, phantoms of
64 x 64 pixels 0.39 to 0.42; values stored without an intercept hold none.
"""


@dataclass(frozen=True, eq=False)
class CTVolume:
    """A scan: ``hu`` and the ``affine`` that places its voxels in the patient.

    ``affine @ (slice, row, column, 1)`` is a point in RAS millimetres, nibabel's
    convention for an array whose axes are ``[slices, rows, cols]``. ``notes`` lists
    what was done to the voxels since they were read, one short sentence each.
    """

    hu: HU
    affine: Affine
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.hu.ndim != 3 or self.hu.dtype != np.int16 or 0 in self.hu.shape:
            raise VolumeError(
                "a volume must be int16 [slices, rows, cols] and not empty, "
                f"got {self.hu.dtype} {list(self.hu.shape)}"
            )
        if self.affine.shape != (4, 4) or not np.isfinite(self.affine).all():
            raise VolumeError("the affine of a volume must be a finite 4 x 4 matrix")
        if np.linalg.matrix_rank(self.affine[:3, :3]) < 3:
            raise VolumeError("the affine of a volume must not be singular")

    @property
    def spacing(self) -> tuple[float, float, float]:
        """The distance of neighbouring voxels along slices, rows, columns, in mm."""
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        return (float(lengths[0]), float(lengths[1]), float(lengths[2]))

    @classmethod
    def canonical(
        cls, voxels: np.ndarray, affine: Affine, notes: tuple[str, ...] = ()
    ) -> "CTVolume":
        """Bring voxels of any axis order into the canonical one; nothing is resampled.

        Floats are rounded to whole HU; what lies below -1024 becomes air. Oblique and
        sheared axes are refused with ``VolumeError``: they have no such order.
        """
        _refuse_unusual_axes(affine)
        size_of = np.abs(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))
        nearest = [int(size_of[coordinate].argmax()) for coordinate, _ in _TOWARDS_RAS]
        turned = voxels.transpose(nearest)
        placed = affine[:, [*nearest, 3]].astype(np.float64)
        for axis, (coordinate, sign) in enumerate(_TOWARDS_RAS):
            if placed[coordinate, axis] * sign < 0:
                turned = np.flip(turned, axis)
                placed[:3, 3] += placed[:3, axis] * (turned.shape[axis] - 1)
                placed[:3, axis] *= -1
        return cls(np.ascontiguousarray(to_hounsfield(turned)), placed, notes)

    def squared(self, size: int) -> "CTVolume":
        """Return the volume on ``size x size`` pixels, its whole field of view kept.

        The shorter side is padded with air to a square in millimetres; the pixels are
        then averaged down (or interpolated up) with an antialiased linear kernel. The
        slices stay as they are.
        """
        import torch  # the only place where a volume needs it
        from torch.nn.functional import interpolate

        padded = self._padded_to_square()
        if padded.hu.shape[1:] == (size, size):
            return padded
        hu = np.empty((len(padded.hu), size, size), np.int16)
        for start in range(0, len(hu), SQUARED_TOGETHER):
            some = torch.from_numpy(padded.hu[start : start + SQUARED_TOGETHER])
            resized = interpolate(
                some.float()[:, None],
                (size, size),
                mode="bilinear",
                antialias=True,
                align_corners=False,
            )
            hu[start : start + SQUARED_TOGETHER] = resized[:, 0].round().numpy()
        note = f"in-plane {padded.hu.shape[1]}x{padded.hu.shape[2]} -> {size}x{size}"
        scale = np.array([padded.hu.shape[1], padded.hu.shape[2]]) / size
        return CTVolume(hu, _scaled(padded.affine, scale), (*padded.notes, note))

    def _padded_to_square(self) -> "CTVolume":
        """Add air on both sides of the shorter in-plane axis."""
        _, row_mm, col_mm = self.spacing
        rows, cols = self.hu.shape[1:]
        side_mm = max(rows * row_mm, cols * col_mm)
        missing = [round(side_mm / row_mm) - rows, round(side_mm / col_mm) - cols]
        if missing == [0, 0]:
            return self
        before = [count // 2 for count in missing]
        margins = [(b, m - b) for b, m in zip(before, missing, strict=True)]
        hu = np.pad(self.hu, [(0, 0), *margins], constant_values=AIR)
        affine = self.affine.copy()
        affine[:3, 3] -= affine[:3, 1] * before[0] + affine[:3, 2] * before[1]
        note = f"padded with air to {hu.shape[1]}x{hu.shape[2]}"
        return replace(self, hu=hu, affine=affine, notes=(*self.notes, note))


def to_hounsfield(values: np.ndarray) -> np.ndarray:
    """Round to whole HU and clip to ``HU_RANGE``, as int16 of the same shape."""
    low, high = HU_RANGE
    if values.dtype == np.int16:  # the common case, in one pass and one copy
        raised: np.ndarray = np.maximum(values, np.int16(low), order="C")
        return raised
    if values.dtype.kind == "f":
        values = np.rint(values)
    else:  # a bound that the integers cannot hold is no bound
        held = np.iinfo(values.dtype)
        low, high = max(low, int(held.min)), min(high, int(held.max))
    hu: np.ndarray = np.clip(values, low, high).astype(np.int16)
    return hu


def shows_air(volume: CTVolume) -> bool:
    """Tell whether voxels can be HU, because there is air among them."""
    every = 1 if volume.hu.size < 2**22 else 4  # enough to tell a thousandth
    hu = volume.hu[:, ::every, ::every]
    air = np.count_nonzero((hu > AIR) & (hu <= AIR_BELOW))
    return bool(air >= LEAST_AIR * hu.size)


def refuse_other_than_hounsfield(volume: CTVolume) -> None:
    """Raise ``VolumeError`` for voxels that cannot be HU (`shows_air`)."""
    if not shows_air(volume):
        raise VolumeError(
            f"expected a CT in Hounsfield units, got no voxels from {AIR} to "
            f"{AIR_BELOW}, so no air; export the scan again in HU"
        )


def _refuse_unusual_axes(affine: Affine) -> None:
    """Raise ``VolumeError`` unless the axes are the patient's, at plausible spacing."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    shortest, longest = SPACING_MM
    if not ((spacing >= shortest) & (spacing <= longest)).all():
        raise VolumeError(
            f"expected voxels {shortest} to {longest} mm apart, got a spacing outside "
            "of that; check the units of the export"
        )
    axes = affine[:3, :3] / spacing
    if np.abs(axes.T @ axes - np.eye(3)).max() > MAX_SHEAR:
        raise VolumeError(
            "expected axes at right angles, got a sheared volume (a tilted gantry?); "
            "resample it onto a regular grid first"
        )
    if np.abs(axes).max(axis=0).min() < np.cos(np.radians(MAX_ROTATION_DEGREES)):
        raise VolumeError(
            f"expected axes within {MAX_ROTATION_DEGREES:g} degree of the patient's, "
            "got an oblique volume; reformat it to axial slices first"
        )


def _scaled(affine: Affine, scale: np.ndarray) -> Affine:
    """Return the affine of pixels ``scale`` times as large, corners kept in place."""
    scaled = affine.copy()
    for axis, factor in zip((1, 2), scale, strict=True):
        scaled[:3, 3] += affine[:3, axis] * (factor - 1) / 2
        scaled[:3, axis] *= factor
    return scaled
