"""The header of one file: read what places and scales its slices, refuse doubts.

Besides, age and sex are read, of which a decade and a letter are kept. Nothing else is;
SliceThickness and InstanceNumber, which lie, are not even looked at, and identifiers
serve only to tell series, studies and patients apart.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    MediaStorageDirectoryStorage,
)

from ctflow_fed.ct.demographics import UNKNOWN, Demographics
from ctflow_fed.ct.dicom.elements import integer, numbers, raw, texts
from ctflow_fed.ct.dicom.parsing import parse, refusing_doubts
from ctflow_fed.ct.dicom.pixels import (
    JPEG_8_BIT,
    LOSSLESS,
    SYNTAXES,
    PixelFormat,
    pixel_format,
)
from ctflow_fed.ct.volume import MAX_SIDE
from ctflow_fed.errors import VolumeError

__all__ = ["LOCALIZER", "DicomFile", "SliceHeader", "read_file"]

LOCALIZER = "a localizer (scout)"

MAX_FRAMES = 10_000
"""The most slices that a multi-frame file may claim."""

_CLASS_OF_FILE = "MediaStorageSOPClassUID"

_OF_A_SERIES = ("SeriesInstanceUID", "FrameOfReferenceUID", "ConvolutionKernel")

_KEYWORDS = (
    "PatientID",
    "PatientAge",
    "PatientSex",
    "StudyInstanceUID",
    "AccessionNumber",
    *_OF_A_SERIES,
    "SOPClassUID",
    "Modality",
    "SyntheticData",
    "ImageType",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "LossyImageCompression",
    "RescaleType",
    "RescaleSlope",
    "RescaleIntercept",
    "PixelSpacing",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)

_GROUPS = (
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
)
"""What places and scales a frame of an enhanced CT (PS3.3, C.7.6.16)."""


@dataclass(frozen=True)
class SliceHeader:
    """What one slice says of itself, in DICOM's LPS millimetres.

    ``frame`` counts from 0 within the file; ``series`` are the raw bytes that slices of
    one series share; ``orientation`` is the direction of a row, then of a column;
    ``pixel_spacing`` the distance between rows, then between columns.
    """

    path: Path = field(repr=False)
    frame: int
    pixels: PixelFormat
    series: tuple[bytes, ...] = field(repr=False)
    image_type: tuple[str, ...]
    kernel: str
    orientation: tuple[float, ...]
    pixel_spacing: tuple[float, ...]
    position: tuple[float, ...]
    slope: float
    intercept: float
    lossy: bool


@dataclass(frozen=True)
class DicomFile:
    """One file: whose it is, and its slices, or why those of its series are no use.

    There are no slices in what is no CT (a segmentation, a report, a localizer).
    """

    patient: bytes = field(repr=False)
    study: bytes = field(repr=False)
    accession: bytes = field(repr=False)
    series: bytes = field(repr=False)
    slices: tuple[SliceHeader, ...] = ()
    left_aside: str = ""
    problem: str = ""
    demographics: Demographics = UNKNOWN
    synthetic: bool = False


def read_file(path: Path) -> DicomFile | None:
    """Read the header of a DICOM file; None for a DICOMDIR, which is of no patient.

    Raises:
        VolumeError: for a header that cannot be parsed; a CT slice that cannot be used
            is a `DicomFile` with a problem, so that it costs its series alone.
    """
    with refusing_doubts(
        "expected a readable DICOM header, got one that is broken or departs from the "
        "standard; export the series again"
    ):
        dataset, offset = parse(path, _KEYWORDS)
        stored = dataset.file_meta.get(_CLASS_OF_FILE)
        if stored == MediaStorageDirectoryStorage:
            return None
        file = DicomFile(
            raw(dataset, "PatientID"),
            raw(dataset, "StudyInstanceUID"),
            raw(dataset, "AccessionNumber"),
            raw(dataset, "SeriesInstanceUID"),
            demographics=_demographics(dataset),
            synthetic=texts(dataset, "SyntheticData") == ("YES",),
        )
        # Some de-identifiers empty the class of the dataset, not that of the file.
        left_aside = _no_ct(dataset, raw(dataset, "SOPClassUID").decode() or stored)
    if left_aside:
        return replace(file, left_aside=left_aside)
    try:
        with refusing_doubts(
            "expected the elements of a CT slice, got one with a value of the wrong "
            "form; export the series again"
        ):
            return replace(file, slices=tuple(_slices(dataset, path, offset)))
    except VolumeError as error:
        return replace(file, problem=str(error))


def _demographics(dataset: Dataset) -> Demographics:
    age, sex = (texts(dataset, name) for name in ("PatientAge", "PatientSex"))
    return Demographics.of("".join(age), "".join(sex))


def _no_ct(dataset: Dataset, storage: str) -> str:
    """Say what an object is that holds no slices of CT, "" for one that does."""
    kinds = (CTImageStorage, EnhancedCTImageStorage)
    if storage not in kinds or texts(dataset, "Modality") != ("CT",):
        return "another kind of DICOM object"
    if "LOCALIZER" in texts(dataset, "ImageType"):
        return LOCALIZER
    return ""


def _slices(dataset: Dataset, path: Path, offset: int) -> Iterator[SliceHeader]:
    """Yield the slices of a file, placed by their frames or by the file itself."""
    _refuse_other_pixels(dataset)
    frames = _frames(dataset)
    pixels = pixel_format(dataset, offset, len(frames))
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    kernel = "\\".join(texts(dataset, "ConvolutionKernel"))
    for index, frame in enumerate(frames):
        slope, intercept = _rescale(frame)
        yield SliceHeader(
            path=path,
            frame=index,
            pixels=pixels,
            series=tuple(raw(dataset, keyword) for keyword in _OF_A_SERIES),
            image_type=texts(dataset, "ImageType"),
            kernel=kernel,
            orientation=_numbers(frame, "ImageOrientationPatient", 6),
            pixel_spacing=_spacing(frame),
            position=_numbers(frame, "ImagePositionPatient", 3),
            slope=slope,
            intercept=intercept,
            lossy=syntax not in LOSSLESS
            or texts(dataset, "LossyImageCompression") == ("01",),
        )


def _refuse_other_pixels(dataset: Dataset) -> None:
    """Refuse several samples, unknown compression, absurd sizes, and what is not HU."""
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax not in SYNTAXES:
        raise VolumeError(
            "expected slices in a transfer syntax of CT, got another or none; export "
            "the original, uncompressed"
        )
    big = syntax == ExplicitVRBigEndian
    bits = integer(dataset, "BitsAllocated", big=big)
    if SYNTAXES[syntax] == "none" or (syntax in JPEG_8_BIT and bits != 8):
        raise VolumeError(
            "expected uncompressed or losslessly compressed slices, got a lossy "
            "compression that cannot be read; export the original"
        )
    picture = (
        integer(dataset, "SamplesPerPixel", big=big),
        bits,
        *texts(dataset, "PhotometricInterpretation"),
    )
    if picture != (1, 8 if syntax in JPEG_8_BIT else 16, "MONOCHROME2"):
        raise VolumeError(
            "expected one 16-bit MONOCHROME2 sample a pixel, got another kind of "
            "picture; export the original CT"
        )
    size = [integer(dataset, side, big=big) for side in ("Rows", "Columns")]
    if not all(1 <= side <= MAX_SIDE for side in size):
        raise VolumeError(
            f"expected 1 to {MAX_SIDE} rows and columns, got a slice outside of that; "
            "export the series again"
        )


def _frames(dataset: Dataset) -> list[Dataset]:
    """Return one dataset a frame with its geometry and rescale."""
    count = int(raw(dataset, "NumberOfFrames") or 1)
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence")
    if per_frame is None and count == 1:
        return [dataset]
    if per_frame is None or len(per_frame) != count or count > MAX_FRAMES:
        raise VolumeError(
            "expected a place for each frame of a multi-frame CT, got none or another "
            "number of them; export the series as single-frame CT"
        )
    shared = dataset.get("SharedFunctionalGroupsSequence") or [Dataset()]
    return [_flattened(shared[0], own) for own in per_frame]


def _flattened(shared: Dataset, own: Dataset) -> Dataset:
    """Return the elements of the functional groups of one frame, its own last."""
    frame = Dataset()
    for groups in (shared, own):
        for name in _GROUPS:
            for item in groups.get(name) or ():
                frame.update(item)
    return frame


def _rescale(dataset: Dataset) -> tuple[float, float]:
    """Return slope and intercept; where both are absent the pixels must be HU.

    Whether they are is seen from the voxels (`refuse_other_than_hounsfield`).
    """
    if texts(dataset, "RescaleType") not in ((), ("HU",)):
        raise VolumeError(
            "expected voxels that rescale to HU, got another unit; export the series "
            "in Hounsfield units"
        )
    if not raw(dataset, "RescaleSlope") and not raw(dataset, "RescaleIntercept"):
        return 1.0, 0.0
    (slope,) = _numbers(dataset, "RescaleSlope", 1)
    (intercept,) = _numbers(dataset, "RescaleIntercept", 1)
    if slope <= 0:
        raise VolumeError(
            "expected a positive RescaleSlope, got zero or less; export the series "
            "again in Hounsfield units"
        )
    return slope, intercept


def _spacing(dataset: Dataset) -> tuple[float, ...]:
    spacing = _numbers(dataset, "PixelSpacing", 2)
    if min(spacing) <= 0:
        raise VolumeError(
            "expected a positive PixelSpacing, got zero or less; export the series "
            "with its geometry"
        )
    return spacing


def _numbers(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...]:
    """Return the ``count`` finite numbers of an element."""
    found = numbers(dataset, keyword)
    if len(found) != count or not all(map(math.isfinite, found)):
        raise VolumeError(
            f"expected {keyword} with {count} finite value(s) in every slice, got none "
            "or others; export the series with its geometry and rescale"
        )
    return found
