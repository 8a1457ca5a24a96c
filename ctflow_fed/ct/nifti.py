"""NIfTI volumes of CT: read with doubts refused, written so that bytes repeat."""

import gzip
import io
import math
from pathlib import Path

import numpy as np
from nibabel.nifti1 import Nifti1Header, Nifti1Image
from nibabel.nifti2 import Nifti2Header

from ctflow_fed.ct.acquisition import Acquisition
from ctflow_fed.ct.volume import (
    MAX_SIDE,
    MAX_VOXELS,
    CTVolume,
    refuse_other_than_hounsfield,
    to_hounsfield,
)
from ctflow_fed.errors import SettingsError, VolumeError
from ctflow_fed.files import write_bytes
from ctflow_fed.shapes import HU, Affine

__all__ = ["description_of", "read_map", "read_nifti", "write_nifti"]

SUFFIXES = (".nii", ".nii.gz")

DISAGREEMENT_MM = 0.5
"""How far the corners under sform and qform may lie apart.

Of a scan turned by half a turn and a little, as those with x to the left are, qform's
float32 tells the angle to 7e-4 only: 0.35 mm across 500 mm.
"""

SAME_STEP_MM = 1e-3
"""How far steps from voxel to voxel may lie apart: what a table rounds."""

UNPACKED_BYTES = 2**26
HARDEST_PACKING = 200
"""A packed file may claim this many bytes, or so many times its own size."""

DESCRIPTION_LENGTH = 79
"""What fits into ``descrip``, with its closing zero."""

_AXES_OF_FILE = (2, 1, 0)
"""A file's axes are columns, rows, slices: x to the left, y to the back, z upwards."""


def read_nifti(path: Path, acquisition: Acquisition | None = None) -> CTVolume:
    """Read a ``.nii`` or ``.nii.gz`` file of CT in HU, in canonical order.

    Scaling by ``scl_slope`` is applied; nothing is resampled. Voxels are read slice by
    slice, so that memory holds the volume once, whatever the file's type of numbers.
    What is known of the ``acquisition`` goes before what the file says.

    Raises:
        VolumeError: for what is no single regular volume in HU and millimetres, with
            one orientation; the sentence does not name the file.
    """
    volume = _read(path, acquisition)
    if acquisition is not None:
        volume = acquisition.in_hounsfield(volume)
    refuse_other_than_hounsfield(volume)
    return volume


def read_map(path: Path) -> CTVolume:
    """Read a file of whole numbers that name voxels; otherwise as `read_nifti`."""
    return _read(path, None, whole=True)


def _read(
    path: Path, acquisition: Acquisition | None, *, whole: bool = False
) -> CTVolume:
    """Read a file in canonical order, whatever its numbers mean."""
    broken = VolumeError(
        "expected a NIfTI file (.nii or .nii.gz), got one that is missing, broken or "
        "of another kind; export the volume again"
    )
    if not path.name.lower().endswith(SUFFIXES) or not path.is_file():
        raise broken
    try:
        with _opened(path) as file:
            header = _header(file)
    except Exception:  # noqa: BLE001  parsers of hostile bytes raise anything
        raise broken from None
    shape = header.get_data_shape()
    _refuse_other_shapes(shape)
    _refuse_other_units(header)
    _refuse_inflation(path, header)
    affine, notes = _placed(header, shape, acquisition)
    affine = affine[:, [*_AXES_OF_FILE, 3]]
    volume = CTVolume.canonical(_voxels(path, header, whole), affine, notes)
    if len(volume.hu) < 2:
        raise VolumeError(
            "expected a volume of at least two slices, got a single one; export the "
            "complete series"
        )
    return volume


def description_of(path: Path) -> str:
    """Return what a file's header says in ``descrip``, "" where it cannot be read."""
    try:
        with _opened(path) as file:
            described = bytes(_header(file)["descrip"])
    except Exception:  # noqa: BLE001  parsers of hostile bytes raise anything
        return ""
    return described.rstrip(b"\0").decode("ascii", "replace")


def write_nifti(volume: CTVolume, path: Path, *, description: str = "") -> None:
    """Write int16 HU to a ``.nii`` or ``.nii.gz`` file, whole or not at all.

    Axes are columns, rows, slices (x to the left, y to the back, z upwards), placed by
    sform, and by qform where it can say the same. The same volume and description give
    the same bytes.

    Raises:
        SettingsError: for another suffix, or a description that does not fit.
    """
    if not path.name.endswith(SUFFIXES):
        raise SettingsError(
            "a NIfTI file must end in .nii or .nii.gz, got another suffix; rename it"
        )
    if not description.isascii() or len(description) > DESCRIPTION_LENGTH:
        raise SettingsError(
            f"description must be at most {DESCRIPTION_LENGTH} ASCII characters, got "
            f"{len(description)}; shorten it"
        )
    content = _image(volume, description).to_bytes()
    if path.name.endswith(".gz"):
        # No time and no name in the wrapper; level 1, since noise packs no better at 9.
        content = gzip.compress(content, compresslevel=1, mtime=0)
    write_bytes(path, content)


def _image(volume: CTVolume, description: str) -> Nifti1Image:
    """Return the nibabel image of a volume."""
    affine = volume.affine[:, [*_AXES_OF_FILE, 3]]
    image = Nifti1Image(volume.hu.transpose(_AXES_OF_FILE), affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    if not _distance(affine, image.get_qform(), image.shape) <= DISAGREEMENT_MM:
        image.set_qform(None, code=0)  # it has no shear and a coarse angle
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = description.encode()
    return image


def _opened(path: Path) -> io.BufferedIOBase:
    """Open the file, or what is packed in it."""
    packed = path.name.lower().endswith(".gz")
    return gzip.GzipFile(path) if packed else path.open("rb")


def _header(file: io.BufferedIOBase) -> Nifti1Header:
    """Read the header alone: extensions may claim any length and hold anything."""
    start = file.read(Nifti2Header.sizeof_hdr)
    kind = Nifti2Header if start[4:7] == b"n+2" else Nifti1Header
    header: Nifti1Header = kind.from_fileobj(
        io.BytesIO(start[: kind.sizeof_hdr]),
        check=False,  # it would write values of the header into the log
    )
    header.get_data_dtype(), header.get_data_shape()  # raise for what is unknown
    if bytes(header["magic"])[:3] not in (b"n+1", b"n+2"):
        raise ValueError("the voxels of a pair of files lie elsewhere")
    return header


def _refuse_inflation(path: Path, header: Nifti1Header) -> None:
    """Refuse a header that claims more voxels than its file can hold."""
    claimed = math.prod(header.get_data_shape()) * header.get_data_dtype().itemsize
    held = path.stat().st_size
    packed = path.name.lower().endswith(".gz")
    if claimed > (max(UNPACKED_BYTES, HARDEST_PACKING * held) if packed else held):
        raise VolumeError(
            "expected as many voxels as the header says, got a file that is cut short "
            "or claims too many; copy it again"
        )


def _refuse_other_shapes(shape: tuple[int, ...]) -> None:
    """Refuse series of volumes, pictures, and absurd sizes."""
    if len(shape) < 3 or any(length != 1 for length in shape[3:]):
        raise VolumeError(
            "expected one three-dimensional volume, got another number of dimensions; "
            "store each volume in a file of its own"
        )
    if not all(1 <= side <= MAX_SIDE for side in shape[:3]) or (
        int(np.prod(shape[:3], dtype=np.int64)) > MAX_VOXELS
    ):
        raise VolumeError(
            f"expected 1 to {MAX_SIDE} voxels a side and at most {MAX_VOXELS}, got a "
            "header that claims others; export the volume again"
        )


def _refuse_other_units(header: Nifti1Header) -> None:
    """Refuse metres and micrometres, and voxels that are no real numbers."""
    try:
        unit = header.get_xyzt_units()[0]
    except KeyError:
        unit = "undefined"
    if unit not in ("mm", "unknown"):
        raise VolumeError(
            "expected millimetres, got another unit in xyzt_units; convert the volume"
        )
    if header.get_data_dtype().kind not in "iuf":
        raise VolumeError(
            "expected integer or real voxels, got complex numbers or colours; export "
            "the CT in Hounsfield units"
        )


def _placed(
    header: Nifti1Header, shape: tuple[int, ...], acquisition: Acquisition | None
) -> tuple[Affine, tuple[str, ...]]:
    """Return the affine, and a note where it is another than the file's."""
    if acquisition is None:
        return _placement(header, shape), ()
    told = acquisition.affine
    try:
        own = _placement(header, shape)
    except VolumeError:
        own = np.zeros((4, 4))
    if np.allclose(own[:3, :3], told[:3, :3], rtol=0, atol=SAME_STEP_MM):
        return own, ()
    return told, ("placed by the table of metadata",)


def _placement(header: Nifti1Header, shape: tuple[int, ...]) -> Affine:
    """Return the affine, of which sform and qform must give one and the same."""
    try:
        sform, sform_code = header.get_sform(coded=True)
        qform, qform_code = header.get_qform(coded=True)
    except Exception:  # noqa: BLE001  nibabel raises many things for a bad quaternion
        raise VolumeError(
            "expected an orientation, got a qform that is none; export the volume again"
        ) from None
    forms = [
        form
        for form, code in ((sform, sform_code), (qform, qform_code))
        if code > 0 and form is not None
    ]
    if not forms:
        raise VolumeError(
            "expected a volume that says where it lies, got neither sform nor qform; "
            "export it again with its orientation"
        )
    # `not <=` refuses NaN as well.
    if not _distance(forms[0], forms[-1], shape) <= DISAGREEMENT_MM:
        raise VolumeError(
            f"expected sform and qform to agree within {DISAGREEMENT_MM} mm, got two "
            "orientations; remove the wrong one"
        )
    affine: Affine = np.array(forms[0], np.float64)
    return affine


def _distance(one: Affine, other: Affine, shape: tuple[int, ...]) -> float:
    """Return how far the corners of a volume lie apart under two affines, in mm."""
    corners = np.array([*np.ndindex(2, 2, 2)]) * (np.array(shape[:3]) - 1)
    difference = (one - other)[:3]
    return float(np.abs(corners @ difference[:, :3].T + difference[:, 3]).max())


def _voxels(path: Path, header: Nifti1Header, whole: bool) -> HU:
    """Read and scale the voxels as ``[slices, rows, cols]`` of the file."""
    columns, rows, slices = header.get_data_shape()[:3]
    hu = np.empty((slices, rows, columns), np.int16)
    try:
        with _opened(path) as file:
            file.seek(int(header.get_data_offset()))
            for plane in hu:
                values = _plane(file, header, plane.shape)
                if whole and not np.array_equal(values, np.rint(values)):
                    raise VolumeError(
                        "expected whole numbers, got others; export the map again"
                    )
                plane[:] = to_hounsfield(values)
            file.read(1)  # the checksum of a packed file comes after its last byte
    except VolumeError:
        raise
    except Exception:  # noqa: BLE001  a cut or false gzip stream raises many things
        raise VolumeError(
            "expected as many voxels as the header says, got a file that is cut short "
            "or broken; copy it again"
        ) from None
    return hu


def _plane(
    file: io.BufferedIOBase, header: Nifti1Header, shape: tuple[int, ...]
) -> np.ndarray:
    """Read and scale one slice."""
    dtype = header.get_data_dtype()
    content = file.read(math.prod(shape) * dtype.itemsize)
    values = np.frombuffer(content, dtype).reshape(shape)
    if dtype.kind == "f" and not np.isfinite(values).all():
        raise VolumeError(
            "expected finite voxels, got NaN or infinity among them; export the volume "
            "again"
        )
    slope, offset = header.get_slope_inter()
    if (slope or 1.0, offset or 0.0) == (1.0, 0.0):
        return values
    return values * np.float64(slope) + np.float64(offset or 0.0)
