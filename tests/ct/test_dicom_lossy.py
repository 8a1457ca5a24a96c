"""Lossy compression: refused, or by policy read and flagged."""

import io

import gdcm
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, JPEGExtended12Bit

from ctflow_fed.ct.dicom import SeriesTags, read_series, write_series
from ctflow_fed.ct.policy import IntakePolicy
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.errors import VolumeError

ACCEPTING = IntakePolicy(region="any", lossy="accept")
FLAG = "lossily compressed source accepted: its HU may be off"


def noisy_ball():
    z, y, x = np.ogrid[:3, :64, :64]
    ball = (y - 32) ** 2 + (x - 32) ** 2 < 500 - 20 * z
    noise = np.random.default_rng(0).normal(0, 12, ball.shape)
    hu = (np.where(ball, 40, -1000) + noise).astype(np.int16)
    return CTVolume(hu, np.diag([2.5, -1.5, -1.5, 1.0])[[2, 1, 0, 3]])


@pytest.fixture
def series(tmp_path):
    write_series(noisy_ball(), tmp_path / "series", seed=0, tags=SeriesTags("SYN-0"))
    return tmp_path / "series"


def near_lossless():
    codec = gdcm.JPEGLSCodec()
    codec.SetLossless(False)
    codec.SetLossyError(3)
    return gdcm.TransferSyntax.JPEGLSNearLossless, codec


def irreversible():
    codec = gdcm.JPEG2000Codec()
    codec.SetReversible(False)
    codec.SetRate(0, 8)
    return gdcm.TransferSyntax.JPEG2000, codec


def recoded(series, syntax, codec):
    for path in series.iterdir():
        reader, change = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax()
        reader.SetFileName(str(path))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
        change.SetUserCodec(codec)
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(path))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
    return series


def baseline(series):
    """Write pictures of eight bits, 8 HU a grey value."""
    for path in series.iterdir():
        dataset = pydicom.dcmread(path)
        grey = (dataset.pixel_array // 8).clip(0, 255).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(grey).save(stream, "JPEG", quality=95)
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit, dataset.RescaleSlope = 7, 8
        dataset.LossyImageCompression = "01"
        dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        dataset.PixelData = encapsulate([stream.getvalue()])
        dataset["PixelData"].VR = "OB"
        dataset.save_as(path)
    return series


WRITERS = {
    "JPEG-LS near-lossless": (lambda s: recoded(s, *near_lossless()), 60),
    "JPEG 2000 lossy": (lambda s: recoded(s, *irreversible()), 120),
    "JPEG baseline": (baseline, 120),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_lossy_series_is_refused_or_by_policy_read_and_flagged(series, name):
    write, most = WRITERS[name]
    write(series)

    with pytest.raises(VolumeError, match="lossy"):
        read_series(series)
    volume = read_series(series, ACCEPTING)
    error = np.abs(volume.hu.astype(int) - noisy_ball().hu)
    assert 0 < error.max() < most
    assert error.mean() < 10
    assert volume.notes == (FLAG,)


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGExtended12Bit])
def test_a_jpeg_of_twelve_bits_is_refused_as_lossy_by_any_policy(series, syntax):
    baseline(series)
    for path in series.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.save_as(path)

    with pytest.raises(VolumeError, match="lossy compression that cannot be read"):
        read_series(series, ACCEPTING)


def test_a_picture_of_eight_bits_is_no_ct_unless_it_is_a_jpeg(series):
    for path in series.iterdir():
        dataset = pydicom.dcmread(path)
        grey = (dataset.pixel_array // 8).astype(np.uint8)
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit = 7
        dataset.PixelData = grey.tobytes()
        dataset.save_as(path)

    with pytest.raises(VolumeError, match="16-bit"):
        read_series(series, ACCEPTING)


def test_a_jpeg_of_another_size_than_its_header_is_refused(series):
    baseline(series)
    path = sorted(series.iterdir())[1]
    dataset = pydicom.dcmread(path)
    stream = io.BytesIO()
    Image.fromarray(np.zeros((2048, 2048), np.uint8)).save(stream, "JPEG")
    dataset.PixelData = encapsulate([stream.getvalue()])
    dataset.save_as(path)

    with pytest.raises(VolumeError, match="decodable"):
        read_series(series, ACCEPTING)
