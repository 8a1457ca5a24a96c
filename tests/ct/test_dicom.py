"""Series that are read, and every irregular series that is refused."""

import logging
import re
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import gdcm
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    MediaStorageDirectoryStorage,
)

from ctflow_fed.ct.dicom import SeriesTags, read_series, write_series
from ctflow_fed.ct.dicom.codestream import read_codestream
from ctflow_fed.ct.nifti import read_nifti, write_nifti
from ctflow_fed.ct.volume import AIR, CTVolume
from ctflow_fed.errors import VolumeError

Edit = Callable[[pydicom.Dataset], None]


def chest_like(slices=6, rows=24, cols=20):
    """A small volume with air, every slice different, in canonical order."""
    noise = np.random.default_rng(7).integers(-1024, 1500, (slices, rows, cols))
    affine = np.array(
        [[0, 0, -0.7, 81.25], [0, -0.9, 0, 60.5], [2.5, 0, 0, -310.125], [0, 0, 0, 1.0]]
    )
    return CTVolume(noise.astype(np.int16), affine)


@pytest.fixture
def series(tmp_path):
    folder = tmp_path / "series"
    write_series(chest_like(), folder, seed=3, tags=SeriesTags("SYN-7"))
    return folder


def edit(path: Path, change: Edit) -> None:
    """Change one file of a series in place."""
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)


def edit_all(folder: Path, change: Edit) -> None:
    for path in sorted(folder.glob("*.dcm")):
        edit(path, change)


def setting(keyword, value) -> Edit:
    return lambda dataset: setattr(dataset, keyword, value)


def removing(keyword) -> Edit:
    return lambda dataset: delattr(dataset, keyword)


# --- what is read ---------------------------------------------------------------------


def test_a_written_series_is_read_back_exactly(series):
    volume = read_series(series)

    expected = chest_like()
    assert np.array_equal(volume.hu, expected.hu)
    assert np.abs(volume.affine - expected.affine).max() < 1e-9
    assert volume.spacing == pytest.approx((2.5, 0.9, 0.7))


def test_names_numbers_and_thickness_do_not_matter(series):
    for number, path in enumerate(sorted(series.glob("*.dcm"), reverse=True)):
        edit(path, setting("InstanceNumber", (5 * number) % 6))
        edit(path, setting("SliceThickness", "9"))
        deeper = series / f"{number % 2}" / f"IM{number}"
        deeper.parent.mkdir(exist_ok=True)
        path.rename(deeper)

    assert np.array_equal(read_series(series).hu, chest_like().hu)


def test_files_that_are_no_slices_are_left_aside(series):
    (series / "notes.txt").write_text("no DICOM")
    (series / ".hidden.dcm").write_text("a resource fork")
    directory = pydicom.dcmread(series / "00001.dcm")
    directory.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    directory.save_as(series / "DICOMDIR")

    assert np.array_equal(read_series(series).hu, chest_like().hu)


@pytest.mark.parametrize("turn", ["upside down", "coronal", "sagittal"])
def test_stacks_of_any_axis_become_canonical(tmp_path, turn):
    volume = chest_like()
    axes = {"upside down": (0, 1, 2), "coronal": (1, 0, 2), "sagittal": (2, 0, 1)}[turn]
    affine = volume.affine[:, [*axes, 3]]
    voxels = volume.hu.transpose(axes)
    if turn == "upside down":
        affine[:3, 3] += affine[:3, 0] * (len(voxels) - 1)
        affine[:3, 0] *= -1
        voxels = voxels[::-1]
    turned = CTVolume(np.ascontiguousarray(voxels), affine)
    write_series(turned, tmp_path / "turned", seed=1, tags=SeriesTags("SYN-1"))

    read = read_series(tmp_path / "turned")
    assert np.array_equal(read.hu, volume.hu)
    assert np.abs(read.affine - volume.affine).max() < 1e-9


def test_every_slice_has_its_own_rescale(series):
    def halve(dataset):
        stored = np.frombuffer(dataset.PixelData, "<u2")
        dataset.PixelData = (stored // 2).astype("<u2").tobytes()
        dataset.RescaleSlope, dataset.RescaleIntercept = "2", "-1024"

    edit(series / "00003.dcm", halve)

    read, expected = read_series(series).hu, chest_like().hu
    assert np.array_equal(np.delete(read, 2, 0), np.delete(expected, 2, 0))
    assert np.array_equal(read[2], (expected[2] + 1024) // 2 * 2 - 1024)


def test_fractional_slopes_are_rounded_to_whole_hu(series):
    edit_all(series, setting("RescaleSlope", "0.75"))

    expected = np.rint((chest_like().hu.astype(float) + 1024) * 0.75 - 1024)
    assert np.array_equal(read_series(series).hu, expected)


def test_padding_below_air_and_values_beyond_int16_are_clipped(series):
    edit_all(series, setting("RescaleIntercept", "-3024"))
    low = read_series(series).hu

    edit(series / "00001.dcm", setting("RescaleSlope", "60"))
    edit_all(series, setting("RescaleIntercept", "-1024"))
    high = read_series(series).hu

    assert np.array_equal(low, np.maximum(chest_like().hu.astype(int) - 2000, AIR))
    expected = np.minimum((chest_like().hu[0].astype(int) + 1024) * 60 - 1024, 32767)
    assert np.array_equal(high[0], expected)
    assert high.max() == 32767


def pad(value, **elements) -> Edit:
    """Put a padding value into the first pixels, declared by ``elements``."""

    def change(dataset):
        stored = np.frombuffer(dataset.PixelData, "<u2").copy()
        stored[:5] = value
        dataset.PixelData = stored.tobytes()
        for keyword, declared in elements.items():
            dataset.add_new(keyword, "US", declared)

    return change


def test_declared_padding_beyond_all_tissue_becomes_air(series):
    edit(series / "00002.dcm", pad(65535, PixelPaddingValue=65535))

    expected = chest_like().hu[1].copy()
    expected.flat[:5] = AIR
    assert np.array_equal(read_series(series).hu[1], expected)


def test_unused_bits_are_not_read(series):
    def overlay(dataset):
        stored = np.frombuffer(dataset.PixelData, "<u2") | 0xF000
        dataset.PixelData = stored.astype("<u2").tobytes()
        dataset.BitsStored, dataset.HighBit = 12, 11

    edit_all(series, overlay)

    assert np.array_equal(read_series(series).hu, chest_like().hu)


LOSSLESS = {
    "implicit": gdcm.TransferSyntax.ImplicitVRLittleEndian,
    "big endian": gdcm.TransferSyntax.ExplicitVRBigEndian,
    "run length": gdcm.TransferSyntax.RLELossless,
    "jpeg": gdcm.TransferSyntax.JPEGLosslessProcess14,
    "jpeg first order": gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    "jpeg-ls": gdcm.TransferSyntax.JPEGLSLossless,
    "jpeg 2000": gdcm.TransferSyntax.JPEG2000Lossless,
}


def recode(path: Path, syntax: int) -> None:
    """Store a file in another transfer syntax, without loss."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


def deflate(path: Path) -> None:
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path)


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_lossless_syntaxes_are_read_without_loss(series, syntax):
    for path in series.glob("*.dcm"):
        recode(path, LOSSLESS[syntax])

    assert np.array_equal(read_series(series).hu, chest_like().hu)


def test_deflated_files_are_read(series):
    for path in series.glob("*.dcm"):
        deflate(path)

    assert np.array_equal(read_series(series).hu, chest_like().hu)


def test_emptied_identifiers_are_no_obstacle(series):
    def empty(dataset):
        for keyword in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID"):
            setattr(dataset, keyword, "")
        dataset.SOPClassUID = ""

    edit_all(series, empty)

    assert np.array_equal(read_series(series).hu, chest_like().hu)


# --- what is refused ------------------------------------------------------------------


def move(path: Path, *offset: float) -> None:
    """Shift a slice by LPS millimetres."""

    def change(dataset):
        old = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [
            f"{a + b:.6f}" for a, b in zip(old, offset, strict=True)
        ]

    edit(path, change)


def tilt(series: Path) -> None:
    for number, path in enumerate(sorted(series.glob("*.dcm"))):
        move(path, 0, 0.6 * number, 0)


def turn(degrees: float) -> Callable[[Path], None]:
    """Turn the whole series about the x axis: a regular, oblique grid."""

    def change(dataset):
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        matrix = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient"):
            vectors = (
                np.array(getattr(dataset, keyword), float).reshape(-1, 3) @ matrix.T
            )
            setattr(dataset, keyword, [f"{number:.9f}" for number in vectors.ravel()])

    return lambda series: edit_all(series, change)


def one(keyword, value) -> Callable[[Path], None]:
    """Change an element of one slice."""
    return lambda series: edit(series / "00004.dcm", setting(keyword, value))


def all_of(keyword, value) -> Callable[[Path], None]:
    return lambda series: edit_all(series, setting(keyword, value))


def without(keyword) -> Callable[[Path], None]:
    return lambda series: edit(series / "00004.dcm", removing(keyword))


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def lossy_syntax(dataset):
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])


def bomb(path: Path) -> None:
    """A deflated file of 100 kB that inflates to 100 MB."""
    deflate(path)
    content = path.read_bytes()
    start = 144 + int.from_bytes(content[140:144], "little")
    plain = zlib.decompress(content[start:], -zlib.MAX_WBITS)
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    zeros = deflater.compress(plain + bytes(100_000_000)) + deflater.flush()
    path.write_bytes(content[:start] + zeros)


def halve_size(dataset):
    dataset.Rows //= 2
    dataset.PixelData = dataset.PixelData[: len(dataset.PixelData) // 2]


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing slice": (lambda s: (s / "00003.dcm").unlink(), "gaps of 2.5 to 5 mm"),
    "uneven spacing": (lambda s: move(s / "00003.dcm", 0, 0, 0.4), "evenly spaced"),
    "gantry tilt": (tilt, "tilted gantry"),
    "slice shifted sideways": (lambda s: move(s / "00003.dcm", 3, 0, 0), "sideways"),
    "another slice at its position": (
        lambda s: move(shutil.copy(s / "00003.dcm", s / "copy.dcm"), 0, 0, 2.5),
        "one slice at a position",
    ),
    "oblique": (turn(5), "oblique"),
    "single slice": (
        lambda s: [path.unlink() for path in s.glob("0000[2-6].dcm")],
        "at least two slices",
    ),
    "two patients": (one("PatientID", "SYN-OTHER"), "2 patients"),
    "two studies": (one("StudyInstanceUID", "1.2.3"), "2 studies"),
    "two series": (one("SeriesInstanceUID", "1.2.3"), "missing slice"),
    "two frames": (one("FrameOfReferenceUID", "1.2.3"), "missing slice"),
    "two kernels": (one("ConvolutionKernel", "B70f"), "missing slice"),
    "two orientations": (
        one("ImageOrientationPatient", [1, 0, 0, 0, 0, -1]),
        "missing slice",
    ),
    "two pixel spacings": (one("PixelSpacing", [0.9, 0.71]), "missing slice"),
    "two sizes": (lambda s: edit(s / "00004.dcm", halve_size), "missing slice"),
    "localizer": (
        one("ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]),
        "missing slice",
    ),
    "another modality": (all_of("Modality", "MR"), "another kind of DICOM object"),
    "another class": (one("SOPClassUID", "1.2.840.10008.5.1.4.1.1.7"), "missing slice"),
    "several frames": (one("NumberOfFrames", 2), "place for each frame"),
    "colour": (one("SamplesPerPixel", 3), "MONOCHROME2"),
    "inverted": (all_of("PhotometricInterpretation", "MONOCHROME1"), "MONOCHROME2"),
    "eight bits": (one("BitsAllocated", 8), "16-bit"),
    "lossy history": (one("LossyImageCompression", "01"), "missing slice"),
    "lossy history of all": (all_of("LossyImageCompression", "01"), "lossy"),
    "lossy syntax": (lambda s: edit(s / "00004.dcm", lossy_syntax), "lossy"),
    "other unit": (all_of("RescaleType", "US"), "another unit"),
    "no slope": (without("RescaleSlope"), "RescaleSlope"),
    "no intercept": (without("RescaleIntercept"), "RescaleIntercept"),
    "negative slope": (one("RescaleSlope", "-1"), "positive RescaleSlope"),
    "no position": (without("ImagePositionPatient"), "ImagePositionPatient"),
    "no orientation": (without("ImageOrientationPatient"), "ImageOrientationPatient"),
    "no pixel spacing": (without("PixelSpacing"), "PixelSpacing"),
    "zero pixel spacing": (all_of("PixelSpacing", [0, 0]), "positive PixelSpacing"),
    "two positions": (one("ImagePositionPatient", [1, 2]), "3 finite value"),
    "bent orientation": (
        all_of("ImageOrientationPatient", [1, 0, 0, 0.5, 1, 0]),
        "right angles",
    ),
    "absurd spacing": (all_of("PixelSpacing", [900, 900]), "check the units"),
    "absurd rows": (all_of("Rows", 50_000), "rows and columns"),
    "no rows": (without("Rows"), "wrong form"),
    "bits at the top": (one("HighBit", 14), "whole and decodable"),
    "no pixels": (without("PixelData"), "whole and decodable"),
    "cut in the pixels": (lambda s: cut(s / "00004.dcm", 0.9), "whole and decodable"),
    "cut in the header": (lambda s: cut(s / "00004.dcm", 0.2), "expected"),
    "cut to nothing": (lambda s: cut(s / "00004.dcm", 0), "DICOM's mark"),
    "too many pixels": (
        lambda s: edit(s / "00004.dcm", setting("PixelData", bytes(4000))),
        "whole and decodable",
    ),
    "deflate bomb": (lambda s: bomb(s / "00004.dcm"), "holds more"),
    "padding like tissue": (
        lambda s: edit(s / "00004.dcm", pad(1064, PixelPaddingValue=1064)),
        "could be tissue",
    ),
    "padding range like tissue": (
        lambda s: edit(
            s / "00004.dcm",
            pad(65535, PixelPaddingValue=65535, PixelPaddingRangeLimit=1064),
        ),
        "could be tissue",
    ),
    "no air": (all_of("RescaleIntercept", "0"), "no air"),
    "nothing": (shutil.rmtree, "none in it"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_irregular_series_is_refused(series, damage):
    spoil, sentence = DAMAGES[damage]
    spoil(series)

    with pytest.raises(VolumeError, match=sentence):
        read_series(series)


def test_a_small_deviation_of_real_scanners_is_no_tilt_and_no_gap(series):
    for number, path in enumerate(sorted(series.glob("*.dcm"))):
        move(path, 0.05, -0.05, 0.2 * (number % 2))

    assert read_series(series).spacing[0] == pytest.approx((5 * 2.5 + 0.2) / 5)


def test_directions_that_lean_a_little_are_written_so_that_they_are_read_again(
    tmp_path,
):
    wide = chest_like(rows=400, cols=400)
    write_series(wide, tmp_path / "wide", seed=3, tags=SeriesTags("SYN-7"))
    leaning = ["1", "0.0009", "0", "0", "1", "0"]
    edit_all(tmp_path / "wide", setting("ImageOrientationPatient", leaning))

    volume = read_series(tmp_path / "wide")
    axes = volume.affine[:3, :3] / volume.spacing
    assert np.abs(axes.T @ axes - np.eye(3)).max() < 1e-12
    write_nifti(volume, tmp_path / "wide.nii")
    assert np.array_equal(read_nifti(tmp_path / "wide.nii").hu, wide.hu)


def test_refusals_name_no_file_no_patient_and_no_uid(series, caplog):
    named = "Doe^Jane", "PATIENT4711", "1.2.840.99999.4711"
    for path in sorted(series.glob("*.dcm")):
        edit(path, setting("PatientName", named[0]))
        edit(path, setting("PatientID", named[1]))
    private = series / "Doe_Jane_PATIENT4711.dcm"
    (series / "00004.dcm").rename(private)
    intact = private.read_bytes()
    messages = []
    with caplog.at_level(logging.DEBUG):
        for change in (
            setting("SeriesInstanceUID", named[2]),
            setting("ImagePositionPatient", ["1", "2"]),
            removing("PixelData"),
        ):
            edit(private, change)
            with pytest.raises(VolumeError) as refusal:
                read_series(series)
            messages.append(str(refusal.value))
            private.write_bytes(intact)
        for share in (0.2, 0.5, 0.9):
            cut(private, share)
            with pytest.raises(VolumeError) as refusal:
                read_series(series)
            messages.append(str(refusal.value))
            assert refusal.value.__cause__ is None
            assert refusal.value.__suppress_context__ or not refusal.value.__context__
            private.write_bytes(intact)

    told = "\n".join([*messages, caplog.text])
    assert not re.search(r"Doe|4711|00004|tmp", told)


def test_broken_values_of_elements_that_are_not_needed_are_no_obstacle(series):
    def spoil(dataset):
        dataset.add_new("StudyDate", "DA", "")
        dataset["StudyDate"]._value = "yesterday"
        dataset["PatientID"]._value = "x" * 80

    def rewrite(path):
        with pydicom.config.disable_value_validation():
            edit(path, spoil)

    for path in series.glob("*.dcm"):
        rewrite(path)

    assert np.array_equal(read_series(series).hu, chest_like().hu)


# --- compressed streams ---------------------------------------------------------------


def restream(path: Path, change: Callable[[bytearray], None]) -> None:
    """Change the compressed stream of one file."""
    dataset = pydicom.dcmread(path)
    stream = bytearray(get_frame(dataset.PixelData, 0, number_of_frames=1))
    change(stream)
    dataset.PixelData = encapsulate([bytes(stream)])
    dataset.save_as(path)


@pytest.fixture
def wavelets(series):
    for path in series.glob("*.dcm"):
        recode(path, LOSSLESS["jpeg 2000"])
    return series


def test_a_stream_of_another_size_never_reaches_the_decoder(wavelets):
    edit_all(wavelets, setting("Rows", 48))

    with pytest.raises(VolumeError, match="whole and decodable"):
        read_series(wavelets)


def test_the_irreversible_wavelet_is_refused_under_a_lossless_syntax(wavelets):
    def irreversible(stream):
        stream[stream.index(b"\xff\x52") + 13] = 0

    restream(wavelets / "00002.dcm", irreversible)

    with pytest.raises(VolumeError, match="losslessly compressed"):
        read_series(wavelets)


def test_the_general_wavelet_syntax_must_declare_that_nothing_was_lost(wavelets):
    def general(dataset):
        dataset.file_meta.TransferSyntaxUID = JPEG2000

    edit_all(wavelets, general)
    assert np.array_equal(read_series(wavelets).hu, chest_like().hu)

    edit(wavelets / "00002.dcm", removing("LossyImageCompression"))
    with pytest.raises(VolumeError, match="not declared lossless"):
        read_series(wavelets)


def test_a_stream_that_ends_early_is_refused(wavelets):
    def end_early(stream):
        del stream[len(stream) * 3 // 4 :]

    restream(wavelets / "00002.dcm", end_early)

    with pytest.raises(VolumeError, match="whole and decodable"):
        read_series(wavelets)


def test_a_stream_under_a_wrong_syntax_is_refused(wavelets):
    def rename(dataset):
        dataset.file_meta.TransferSyntaxUID = JPEGLSLossless

    edit(wavelets / "00002.dcm", rename)

    with pytest.raises(VolumeError):
        read_series(wavelets)


@pytest.mark.parametrize(
    ("near", "transform", "reversible"), [(0, 0, True), (2, 0, False), (0, 1, False)]
)
def test_jpeg_ls_tells_whether_it_lost_anything(near, transform, reversible):
    frame = b"\xff\xf7\x00\x0b\x10\x00\x18\x00\x14\x01\x01\x11\x00"
    scan = b"\xff\xda\x00\x08\x01\x01\x00" + bytes([near, 0, transform])
    stream = read_codestream(b"\xff\xd8" + frame + scan)

    assert (stream.rows, stream.columns, stream.precision) == (24, 20, 16)
    assert stream.reversible is reversible


def test_bytes_changed_at_random_are_read_or_refused(series):
    random = np.random.default_rng(11)
    path = series / "00004.dcm"
    intact = path.read_bytes()
    refused = 0
    for _ in range(150):
        content = bytearray(intact)
        for place in random.integers(128, 1500, 4):
            content[place] = random.integers(256)
        path.write_bytes(bytes(content))
        try:
            read_series(series)
        except VolumeError:
            refused += 1

    assert 0 < refused < 150
