"""One regular CT series from a folder, or a sentence that says why not."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ctflow_fed.ct.dicom.geometry import SliceGrid, regular_grid
from ctflow_fed.ct.dicom.headers import IDENTIFIERS, SliceHeader, read_header
from ctflow_fed.ct.dicom.parsing import looks_like_dicom
from ctflow_fed.ct.dicom.pixels import decode_slice
from ctflow_fed.ct.volume import MAX_VOXELS, CTVolume, refuse_other_than_hounsfield
from ctflow_fed.errors import VolumeError

__all__ = ["read_series", "visible_files"]

MAX_FILES = 10_000
"""The most files that are looked at in a folder."""

_SAME_DIRECTION = 1e-4
"""How much direction cosines may differ within a series: 0.05 mm across 500 mm."""

_SAME_SPACING = 1e-4
"""How much pixel spacing may differ, relatively: 0.05 mm across 500 mm."""


def read_series(folder: Path) -> CTVolume:
    """Read the one regular CT series in ``folder``, at any depth, in canonical order.

    Geometry comes from ImagePositionPatient, ImageOrientationPatient and PixelSpacing;
    every slice has its own rescale applied; padding becomes air. Nothing is resampled.
    Files that are not DICOM, a DICOMDIR and hidden files are left aside.

    Raises:
        VolumeError: when anything else than one regular series of original CT slices
            is there; the sentence names neither file nor patient.
    """
    headers = [
        header
        for path in _dicom_files(folder)
        if (header := read_header(path)) is not None
    ]
    if not headers:
        raise VolumeError(
            "expected a folder with a DICOM CT series, got none in it; check the path"
        )
    _refuse_several_series(headers)
    grid = _grid(headers)
    ordered = [headers[index] for index in grid.order]
    hu = np.empty((len(ordered), *ordered[0].size), np.int16)
    for plane, header in zip(hu, ordered, strict=True):
        plane[:] = decode_slice(header.path, header.slope, header.intercept)
    volume = CTVolume.canonical(hu, grid.affine)
    refuse_other_than_hounsfield(volume)
    return volume


def _dicom_files(folder: Path) -> Iterator[Path]:
    """Yield the DICOM files below ``folder`` in a fixed order."""
    for path in visible_files(folder):
        if looks_like_dicom(path):
            yield path
        elif path.suffix.lower() == ".dcm":
            raise VolumeError(
                "expected DICOM in every .dcm file, got one without DICOM's mark (cut "
                "short?); export the series again"
            )


def visible_files(folder: Path) -> list[Path]:
    """Return the visible regular files below ``folder``, sorted.

    Raises ``VolumeError`` for more files than a series has.
    """
    found: list[Path] = []
    for parent, subfolders, names in os.walk(folder):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        paths = (Path(parent, name) for name in names if not name.startswith("."))
        found += [path for path in paths if path.is_file()]
        if len(found) > MAX_FILES:
            raise VolumeError(
                f"expected at most {MAX_FILES} files, got more; give each series a "
                "folder of its own"
            )
    return sorted(found)


def _refuse_several_series(headers: Sequence[SliceHeader]) -> None:
    """Refuse slices that do not share identifiers, size, orientation and spacing."""
    for index, name in enumerate(IDENTIFIERS.values()):
        count = len({header.identifiers[index] for header in headers})
        if count > 1:
            raise VolumeError(
                f"expected one CT series, got slices of {count} {name}; give each "
                "series a folder of its own"
            )
    first = headers[0]
    for header in headers[1:]:
        same_directions = np.allclose(
            header.orientation, first.orientation, rtol=0, atol=_SAME_DIRECTION
        )
        same_spacing = np.allclose(
            header.pixel_spacing, first.pixel_spacing, rtol=_SAME_SPACING, atol=0
        )
        if header.size != first.size or not same_directions or not same_spacing:
            raise VolumeError(
                "expected slices of one size, orientation and pixel spacing, got "
                "several; give each series a folder of its own"
            )


def _grid(headers: Sequence[SliceHeader]) -> SliceGrid:
    """Place the slices, refused when they claim more voxels than can be real."""
    rows, columns = headers[0].size
    if len(headers) * rows * columns > MAX_VOXELS:
        raise VolumeError(
            f"expected at most {MAX_VOXELS} voxels, got headers that claim more; "
            "export the series in parts"
        )
    spacing = headers[0].pixel_spacing
    if min(spacing) <= 0:
        raise VolumeError(
            "expected a positive PixelSpacing, got zero or less; export the series "
            "with its geometry"
        )
    positions = np.array([header.position for header in headers], np.float64)
    return regular_grid(headers[0].orientation, spacing, positions)
