"""NRRD and MetaImage (.mha) volumes of CT, read by SimpleITK."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ctflow_fed.ct.volume import (
    MAX_SIDE,
    MAX_VOXELS,
    CTVolume,
    refuse_other_than_hounsfield,
)
from ctflow_fed.errors import MissingExtraError, VolumeError

if TYPE_CHECKING:
    import SimpleITK

__all__ = ["ITK_SUFFIXES", "read_itk"]

ITK_SUFFIXES = (".nrrd", ".mha")

_READERS = {".nrrd": "NrrdImageIO", ".mha": "MetaImageIO"}

_HEADER_BYTES = 2**16
"""The header of either format is text, and short."""

UNPACKED_BYTES = 2**26
HARDEST_PACKING = 200
"""A file may claim this many bytes, or so many times its own size when packed."""


def read_itk(path: Path) -> CTVolume:
    """Read a ``.nrrd`` or ``.mha`` file of CT in HU, in canonical order.

    Raises:
        VolumeError: for what is no single regular volume in HU, or lies in another file
            than the header; the sentence does not name the file.
        MissingExtraError: without SimpleITK.
    """
    try:
        import SimpleITK
    except ImportError:
        raise MissingExtraError("SimpleITK", "formats") from None
    broken = VolumeError(
        "expected a whole NRRD or MetaImage file, got one that is missing, broken or "
        "of another kind; export the volume again"
    )
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO(_READERS[path.suffix.lower()])
    reader.SetFileName(str(path))
    try:
        _refuse_other_files(path)
        reader.ReadImageInformation()
        _refuse_other_shapes(reader, path.stat().st_size)
        image = reader.Execute()
    except (OSError, RuntimeError):
        raise broken from None
    voxels = SimpleITK.GetArrayViewFromImage(image)
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        raise VolumeError(
            "expected finite voxels, got NaN or infinity among them; export the volume "
            "again"
        )
    volume = CTVolume.canonical(voxels, _affine(image))
    refuse_other_than_hounsfield(volume)
    return volume


def _refuse_other_files(path: Path) -> None:
    """Refuse a header that sends the reader to another file."""
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES).lower()
    if path.suffix.lower() == ".mha":
        elsewhere = b"elementdatafile" not in header or not any(
            line.split(b"=")[-1].strip() == b"local"
            for line in header.split(b"\n")
            if line.startswith(b"elementdatafile")
        )
    else:
        text = header.partition(b"\n\n")[0].replace(b" ", b"")
        elsewhere = b"datafile:" in text or not header.startswith(b"nrrd")
    if elsewhere:
        raise VolumeError(
            "expected header and voxels in one file, got a header that names another; "
            "store the volume in one file"
        )


def _refuse_other_shapes(reader: "SimpleITK.ImageFileReader", held: int) -> None:
    """Refuse what is no volume of numbers, and sizes that the file cannot hold."""
    import SimpleITK

    size = reader.GetSize()
    if len(size) != 3 or reader.GetNumberOfComponents() != 1 or min(size) < 2:
        raise VolumeError(
            "expected one three-dimensional volume of single numbers, got another "
            "kind; store each volume in a file of its own"
        )
    voxels = int(np.prod(size, dtype=np.float64))
    depth = 8 if reader.GetPixelID() == SimpleITK.sitkFloat64 else 4
    claims_more = depth * voxels > max(UNPACKED_BYTES, HARDEST_PACKING * held)
    if max(size) > MAX_SIDE or voxels > MAX_VOXELS or claims_more:
        raise VolumeError(
            f"expected 1 to {MAX_SIDE} voxels a side and at most {MAX_VOXELS}, got a "
            "header that claims others; export the volume again"
        )


def _affine(image: "SimpleITK.Image") -> np.ndarray:
    """Return the RAS affine of an array ``[slices, rows, cols]``."""
    directions = np.reshape(image.GetDirection(), (3, 3))
    affine = np.eye(4)
    affine[:3, :3] = (directions * image.GetSpacing())[:, ::-1]
    affine[:3, 3] = image.GetOrigin()
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
