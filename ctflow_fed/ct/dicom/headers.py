"""The header of one slice: read what places and scales it, refuse what is no CT slice.

Nothing else is read; SliceThickness and InstanceNumber, which lie, are not even looked
at, and identifiers serve only to be compared with those of the next slice.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import CTImageStorage, MediaStorageDirectoryStorage

from ctflow_fed.ct.dicom.parsing import parse, refusing_doubts
from ctflow_fed.ct.dicom.pixels import LOSSLESS
from ctflow_fed.ct.volume import MAX_SIDE
from ctflow_fed.errors import VolumeError

__all__ = ["IDENTIFIERS", "SliceHeader", "read_header"]

IDENTIFIERS = {
    "PatientID": "patients",
    "StudyInstanceUID": "studies",
    "SeriesInstanceUID": "series",
    "FrameOfReferenceUID": "frames of reference",
    "ConvolutionKernel": "reconstruction kernels",
}
"""What must not differ within a series, and how a refusal calls it."""

_CLASS_OF_FILE = "MediaStorageSOPClassUID"

_KEYWORDS = (
    *IDENTIFIERS,
    "SOPClassUID",
    "Modality",
    "ImageType",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "Rows",
    "Columns",
    "LossyImageCompression",
    "RescaleType",
    "RescaleSlope",
    "RescaleIntercept",
    "PixelSpacing",
    "ImageOrientationPatient",
    "ImagePositionPatient",
)


@dataclass(frozen=True)
class SliceHeader:
    """What one file says about its slice, in DICOM's LPS millimetres.

    ``identifiers`` are the raw bytes behind `IDENTIFIERS`, empty where absent;
    ``orientation`` is the direction of a row, then of a column; ``pixel_spacing`` the
    distance between rows, then between columns.
    """

    path: Path
    identifiers: tuple[bytes, ...]
    size: tuple[int, int]
    orientation: tuple[float, ...]
    pixel_spacing: tuple[float, ...]
    position: tuple[float, ...]
    slope: float
    intercept: float


def read_header(path: Path) -> SliceHeader | None:
    """Read the header of a DICOM file; None for a DICOMDIR, which is no slice.

    Raises:
        VolumeError: for everything but a lossless, single-frame, single-sample CT
            slice with geometry and rescale.
    """
    dataset = parse(path, _KEYWORDS)
    with refusing_doubts(
        "expected the elements of a CT slice, got one with a value of the wrong form; "
        "export the series again"
    ):
        if dataset.file_meta.get(_CLASS_OF_FILE) == MediaStorageDirectoryStorage:
            return None
        _refuse_other_objects(dataset)
        _refuse_other_pixels(dataset)
        slope, intercept = _rescale(dataset)
        return SliceHeader(
            path=path,
            identifiers=tuple(_raw(dataset, keyword) for keyword in IDENTIFIERS),
            size=_size(dataset),
            orientation=_numbers(dataset, "ImageOrientationPatient", 6),
            pixel_spacing=_numbers(dataset, "PixelSpacing", 2),
            position=_numbers(dataset, "ImagePositionPatient", 3),
            slope=slope,
            intercept=intercept,
        )


def _refuse_other_objects(dataset: Dataset) -> None:
    """Refuse what is not CT Image Storage, and localizers."""
    # Some de-identifiers empty the class of the dataset; the file meta still has it.
    stored = dataset.get("SOPClassUID") or dataset.file_meta.get(_CLASS_OF_FILE)
    if stored != CTImageStorage or dataset.get("Modality") != "CT":
        raise VolumeError(
            "expected only slices of one CT series, got another kind of DICOM object; "
            "keep the CT series alone in its folder, as single-frame CT"
        )
    if "LOCALIZER" in _values(dataset.get("ImageType")):
        raise VolumeError(
            "expected only slices of one CT series, got a localizer (scout); remove it "
            "from the folder"
        )


def _refuse_other_pixels(dataset: Dataset) -> None:
    """Refuse several frames or samples, lossy compression, and what is not HU."""
    if int(dataset.get("NumberOfFrames") or 1) != 1:
        raise VolumeError(
            "expected one frame in a file, got several; export the series as "
            "single-frame CT"
        )
    lossy = dataset.get("LossyImageCompression") == "01"
    if lossy or dataset.file_meta.get("TransferSyntaxUID") not in LOSSLESS:
        raise VolumeError(
            "expected uncompressed or losslessly compressed slices, got a lossy or "
            "unknown compression; export the original, uncompressed"
        )
    samples = (dataset.get("SamplesPerPixel"), dataset.get("BitsAllocated"))
    if samples != (1, 16) or dataset.get("PhotometricInterpretation") != "MONOCHROME2":
        raise VolumeError(
            "expected one 16-bit MONOCHROME2 sample a pixel, got another kind of "
            "picture; export the original CT"
        )
    if (dataset.get("RescaleType") or "HU") != "HU":
        raise VolumeError(
            "expected voxels that rescale to HU, got another unit; export the series "
            "in Hounsfield units"
        )


def _size(dataset: Dataset) -> tuple[int, int]:
    """Return rows and columns, refused when absurd."""
    size = (int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0))
    if not all(1 <= side <= MAX_SIDE for side in size):
        raise VolumeError(
            f"expected 1 to {MAX_SIDE} rows and columns, got a slice outside of that; "
            "export the series again"
        )
    return size


def _rescale(dataset: Dataset) -> tuple[float, float]:
    """Return slope and intercept; both must be there, since pixels alone are not HU."""
    (slope,) = _numbers(dataset, "RescaleSlope", 1)
    (intercept,) = _numbers(dataset, "RescaleIntercept", 1)
    if slope <= 0:
        raise VolumeError(
            "expected a positive RescaleSlope, got zero or less; export the series "
            "again in Hounsfield units"
        )
    return slope, intercept


def _numbers(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...]:
    """Return the ``count`` finite numbers of an element."""
    numbers = tuple(float(value) for value in _values(dataset.get(keyword)))
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise VolumeError(
            f"expected {keyword} with {count} finite value(s) in every slice, got none "
            "or others; export the series with its geometry and rescale"
        )
    return numbers


def _values(value: object) -> list[Any]:
    """Return the values of an element that may be absent, single or several."""
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, MultiValue) else [value]


def _raw(dataset: Dataset, keyword: str) -> bytes:
    """Return the bytes of an element, undecoded: they are compared, never shown."""
    element = dataset.get_item(keyword)
    value = None if element is None else element.value
    return value.strip(b" \0") if isinstance(value, bytes) else b""
