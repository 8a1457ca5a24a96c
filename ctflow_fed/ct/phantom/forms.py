"""The awkward forms of a series, each made from regular slices."""

import copy
import io
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import gdcm
import numpy as np
from pydicom import Dataset, dcmread
from pydicom.uid import UID, EnhancedCTImageStorage, RLELossless

from ctflow_fed.ct.dicom.write import SeriesTags, write_series
from ctflow_fed.ct.volume import AIR, CTVolume

__all__ = [
    "Make",
    "Slices",
    "along",
    "by_gdcm",
    "copied",
    "doubled",
    "far_intercept",
    "gap",
    "in_syntax",
    "lossy",
    "multi_frame",
    "no_hounsfield",
    "no_rescale",
    "own_rescale",
    "padded",
    "permuted",
    "plain",
    "recoded",
    "regular",
    "tilted",
    "two_patients",
    "two_series",
    "uneven",
    "with_localizer",
]

TILT_DEGREES = 14.0

Slices = list[Dataset]
Make = Callable[[Slices, CTVolume], Iterable[tuple[str, Dataset]]]
"""From the regular slices and their volume to files with their names."""


def regular(volume: CTVolume, seed: int) -> Slices:
    """Return the slices of a series as it should be."""
    with TemporaryDirectory() as folder:
        tags = SeriesTags(f"SYN-awkward-{seed}", kernel="STANDARD")
        write_series(volume, Path(folder, "series"), seed=seed, tags=tags)
        return [dcmread(path) for path in sorted(Path(folder, "series").iterdir())]


# --- files -------------------------------------------------------------------------


def _numbered(slices: Iterable[Dataset]) -> list[tuple[str, Dataset]]:
    return [(f"{number:05}.dcm", one) for number, one in enumerate(slices)]


def plain(slices: Slices, _: CTVolume) -> list[tuple[str, Dataset]]:
    """As it should be."""
    return _numbered(slices)


def permuted(slices: Slices, _: CTVolume) -> list[tuple[str, Dataset]]:
    """Nested, without endings, in another order than any header says."""
    for number, one in enumerate(slices):
        one.InstanceNumber = (7 * number) % len(slices)
        one.SliceThickness = "1"
    places = enumerate(reversed(slices))
    return [(f"S{n % 3}/A{n % 2}/IM{n * 37 % 101:03}", one) for n, one in places]


# --- slices too many or too few ------------------------------------------------------


def copied(slices: Slices, _: CTVolume) -> list[tuple[str, Dataset]]:
    """Two slices twice."""
    return _numbered([*slices, slices[7], slices[-1]])


def doubled(slices: Slices, _: CTVolume) -> list[tuple[str, Dataset]]:
    """Another picture at the place of a slice."""
    other = copy.deepcopy(slices[7])
    _store(other, _stored(other) + 9)
    return _numbered([*slices, other])


def gap(slices: Slices, _: CTVolume) -> list[tuple[str, Dataset]]:
    """A slice is missing."""
    return _numbered(slices[:11] + slices[12:])


def with_localizer(slices: Slices, _: CTVolume) -> list[tuple[str, Dataset]]:
    """A localizer among the slices."""
    scout = copy.deepcopy(slices[0])
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    scout.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    return _numbered([*slices, scout])


def two_series(slices: Slices, _: CTVolume) -> list[tuple[str, Dataset]]:
    """Thick slices for the lungs beside the thin ones."""
    thick = copy.deepcopy(slices[::2])
    for one in thick:
        one.SeriesInstanceUID = one.SeriesInstanceUID[:-2] + ".2"
        one.ConvolutionKernel = "LUNG"
    return _numbered([*thick, *slices])


def two_patients(slices: Slices, _: CTVolume) -> list[tuple[str, Dataset]]:
    """Half a series of another patient beside the slices."""
    other = copy.deepcopy(slices[:20])
    for one in other:
        one.PatientID = "SYN-other"
        one.StudyInstanceUID = one.StudyInstanceUID[:-2] + ".2"
    return _numbered([*slices, *other])


# --- geometry ----------------------------------------------------------------------


def tilted(slices: Slices, volume: CTVolume) -> list[tuple[str, Dataset]]:
    """Slices as a tilted gantry sees them, interpolated from the upright ones."""
    angle = np.radians(TILT_DEGREES)
    step, row_mm, column_mm = volume.spacing
    rise = row_mm * np.tan(angle) / step  # slices that the next row lies higher
    middle = (volume.hu.shape[1] - 1) / 2
    for number, one in enumerate(slices):
        hu = np.empty(volume.hu.shape[1:])
        for row in range(len(hu)):
            hu[row] = _at(volume.hu[:, row], number + (row - middle) * rise)
        x, y, z = map(float, one.ImagePositionPatient)
        one.ImagePositionPatient = [x, y, f"{z - middle * rise * step:.8f}"]
        down = [f"{np.cos(angle):.10f}", f"{np.sin(angle):.10f}"]
        one.ImageOrientationPatient = [1, 0, 0, 0, *down]
        one.PixelSpacing = [f"{row_mm / np.cos(angle):.10f}", column_mm]
        _store(one, np.rint(hu) - AIR)
    return _numbered(slices)


def uneven(slices: Slices, volume: CTVolume) -> list[tuple[str, Dataset]]:
    """Every other slice a sixth of a gap higher."""
    step = volume.spacing[0]
    for number, one in enumerate(slices[1:-1:2], start=0):
        place = 2 * number + 1 + 1 / 6
        x, y, z = map(float, one.ImagePositionPatient)
        one.ImagePositionPatient = [x, y, f"{z + step / 6:.6f}"]
        _store(one, np.rint(_at(volume.hu, place)) - AIR)
    return _numbered(slices)


def along(axis: int) -> Make:
    """Slices that are stacked to the back (1) or to the left (2)."""

    def make(slices: Slices, volume: CTVolume) -> list[tuple[str, Dataset]]:
        axes = [axis, *({0, 1, 2} - {axis})]
        turned = np.ascontiguousarray(volume.hu.transpose(axes))
        return _numbered(regular(CTVolume(turned, volume.affine[:, [*axes, 3]]), axis))

    return make


def _at(stack: np.ndarray, place: float) -> np.ndarray:
    """Interpolate a stack at a place between slices; beyond them is the last one."""
    place = min(max(place, 0.0), len(stack) - 1.0)
    below = min(int(place), len(stack) - 2)
    value: np.ndarray = stack[below] + (place - below) * (
        stack[below + 1].astype(np.float64) - stack[below]
    )
    return value


# --- pixels ------------------------------------------------------------------------


def _stored(one: Dataset) -> np.ndarray:
    return np.frombuffer(one.PixelData, "<u2").reshape(one.Rows, one.Columns)


def _store(one: Dataset, values: np.ndarray) -> None:
    dtype = "<i2" if one.PixelRepresentation else "<u2"
    one.PixelData = values.astype(dtype).tobytes()


def far_intercept(slices: Slices, _: CTVolume) -> list[tuple[str, Dataset]]:
    """An intercept of -8192."""
    for one in slices:
        one.RescaleIntercept = "-8192"
        _store(one, _stored(one).astype(int) + AIR + 8192)
    return _numbered(slices)


def own_rescale(slices: Slices, _: CTVolume) -> list[tuple[str, Dataset]]:
    """Each slice has an intercept of its own."""
    for number, one in enumerate(slices):
        one.RescaleIntercept = str(-2000 - number)
        _store(one, _stored(one).astype(int) + AIR + 2000 + number)
    return _numbered(slices)


def no_rescale(slices: Slices, _: CTVolume) -> list[tuple[str, Dataset]]:
    """Stored as HU, without slope and intercept."""
    for one in slices:
        values = _stored(one).astype(int) + AIR
        one.PixelRepresentation = 1
        _store(one, values)
        del one.RescaleIntercept, one.RescaleSlope, one.RescaleType
    return _numbered(slices)


def no_hounsfield(slices: Slices, _: CTVolume) -> list[tuple[str, Dataset]]:
    """The intercept is lost."""
    for one in slices:
        one.RescaleIntercept = "0"
    return _numbered(slices)


def padded(slices: Slices, volume: CTVolume) -> list[tuple[str, Dataset]]:
    """What is air to the corners is padding of -3024 HU."""
    for one, hu in zip(slices, volume.hu, strict=True):
        values = _stored(one).astype(int)
        one.PixelRepresentation = 1
        one.add_new("PixelPaddingValue", "SS", -2000)
        _store(one, np.where(hu == AIR, -2000, values))
    return _numbered(slices)


def lossy(slices: Slices, _: CTVolume) -> list[tuple[str, Dataset]]:
    """Declared to have been compressed with loss."""
    for one in slices:
        one.LossyImageCompression = "01"
    return _numbered(slices)


# --- encodings -----------------------------------------------------------------------


def multi_frame(slices: Slices, _: CTVolume) -> list[tuple[str, Dataset]]:
    """One enhanced CT, its frames from the head down."""
    slices = slices[::-1]
    whole = copy.deepcopy(slices[0])
    whole.SOPClassUID = whole.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    whole.NumberOfFrames = len(slices)
    whole.PixelData = b"".join(one.PixelData for one in slices)
    whole.SharedFunctionalGroupsSequence = [Dataset()]
    (shared,) = whole.SharedFunctionalGroupsSequence
    shared.PlaneOrientationSequence = [_moved(whole, "ImageOrientationPatient")]
    shared.PixelMeasuresSequence = [_moved(whole, "PixelSpacing", "SliceThickness")]
    shared.PixelValueTransformationSequence = [
        _moved(whole, "RescaleIntercept", "RescaleSlope", "RescaleType")
    ]
    del whole.ImagePositionPatient
    whole.PerFrameFunctionalGroupsSequence = [Dataset() for _ in slices]
    for frame, one in zip(whole.PerFrameFunctionalGroupsSequence, slices, strict=True):
        frame.PlanePositionSequence = [_moved(one, "ImagePositionPatient")]
    return [("enhanced", whole)]


def _moved(source: Dataset, *keywords: str) -> Dataset:
    """Move elements into an item of a sequence."""
    item = Dataset()
    for keyword in keywords:
        setattr(item, keyword, source[keyword].value)
        delattr(source, keyword)
    return item


def in_syntax(syntax: UID) -> Make:
    """Written by pydicom in another transfer syntax."""

    def make(slices: Slices, _: CTVolume) -> list[tuple[str, Dataset]]:
        for one in slices:
            if syntax == RLELossless:
                one.compress(RLELossless, generate_instance_uid=False)
            one.file_meta.TransferSyntaxUID = syntax
        return _numbered(slices)

    return make


def by_gdcm(syntax: int) -> Make:
    """Written by GDCM in another transfer syntax."""

    def make(slices: Slices, _: CTVolume) -> list[tuple[str, Dataset]]:
        return _numbered([_recoded(one, syntax) for one in slices])

    return make


def _recoded(one: Dataset, syntax: int) -> Dataset:
    with TemporaryDirectory() as folder:
        plain = Path(folder, "plain")
        one.save_as(plain, enforce_file_format=True)
        return dcmread(io.BytesIO(recoded(plain, syntax)))


def recoded(plain: Path, syntax: int) -> bytes:
    """Return a file in another transfer syntax of GDCM's, written beside it."""
    reader, change = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax()
    reader.SetFileName(str(plain))
    reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    change.SetInput(reader.GetImage())
    change.Change()
    packed = plain.with_suffix(".packed")
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(packed))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.Write()
    return packed.read_bytes()
