"""What a table says of a scan's place and scale where its NIfTI file may be wrong.

The first release of CT-RATE holds stored values under headers that place them wrongly;
its table of metadata has what the DICOM headers said. ``[x, y, z]`` of such a file are
columns, rows and slices, as the data set's own script takes them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ctflow_fed.ct.volume import SPACING_MM, CTVolume, shows_air, to_hounsfield
from ctflow_fed.errors import ReportTableError
from ctflow_fed.shapes import Affine

__all__ = ["COLUMNS", "Acquisition"]

COLUMNS = ("XYSpacing", "ZSpacing", "RescaleSlope", "RescaleIntercept")
"""The columns of CT-RATE's metadata that are needed."""

UPRIGHT = "[1, 0, 0, 0, 1, 0]"

_LIST = re.compile(r"[\[(]?([-+.,\deE\s]*)[\])]?")


@dataclass(frozen=True)
class Acquisition:
    """Place and scale of a scan as its DICOM headers had them.

    ``spacing`` is the distance of columns, rows and slices in mm; ``orientation`` the
    direction along a row, then down a column, in DICOM's LPS.
    """

    spacing: tuple[float, float, float]
    orientation: tuple[float, ...]
    slope: float
    intercept: float

    @classmethod
    def of(cls, row: Mapping[str, str]) -> "Acquisition":
        """Read a row of the table, or raise ``ReportTableError``."""
        try:
            x, y = _numbers(row["XYSpacing"], 2)
            (z,) = _numbers(row["ZSpacing"], 1)
            (slope,) = _numbers(row["RescaleSlope"], 1)
            (intercept,) = _numbers(row["RescaleIntercept"], 1)
            turned = _numbers(row.get("ImageOrientationPatient") or UPRIGHT, 6)
        except ValueError:
            raise ReportTableError(_BROKEN) from None
        unit = np.array([turned[:3], turned[3:]])
        upright = np.allclose(unit @ unit.T, np.eye(2), atol=1e-3)
        placed = all(SPACING_MM[0] <= length <= SPACING_MM[1] for length in (x, y, z))
        if not (upright and placed and 0 < slope <= 100 and abs(intercept) <= 2**15):
            raise ReportTableError(_BROKEN)
        return cls((x, y, z), turned, slope, intercept)

    @property
    def affine(self) -> Affine:
        """Column, row, slice -> RAS mm, from an origin that is not looked at."""
        along, down = np.reshape(self.orientation, (2, 3))
        axes = np.stack([along, down, np.cross(along, down)], axis=1) * self.spacing
        affine = np.eye(4)
        affine[:3, :3] = np.diag([-1.0, -1.0, 1.0]) @ axes
        return affine

    def in_hounsfield(self, volume: CTVolume) -> CTVolume:
        """Rescale stored values to HU; a volume that shows air has HU already."""
        if shows_air(volume) or (self.slope, self.intercept) == (1, 0):
            return volume
        hu = np.empty_like(volume.hu)
        for stored, plane in zip(volume.hu, hu, strict=True):
            plane[:] = to_hounsfield(stored * self.slope + self.intercept)
        note = "stored values rescaled to HU by the table of metadata"
        return replace(volume, hu=hu, notes=(*volume.notes, note))


_BROKEN = (
    "expected spacing, orientation and rescale of a scan in its row of the metadata, "
    "got values that are none; correct the row or leave the study out"
)


def _numbers(text: str, count: int) -> tuple[float, ...]:
    """Return the finite numbers of a cell such as ``[0.75, 0.75]``."""
    found = _LIST.fullmatch(text.strip())
    numbers = tuple(map(float, found[1].split(","))) if found else ()
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise ValueError("expected another number of numbers")
    return numbers
