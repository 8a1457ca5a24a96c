"""The pixels of one slice as HU: decoded without loss, or refused."""

from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int16
from pydicom import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from ctflow_fed.ct.dicom.codestream import read_codestream
from ctflow_fed.ct.dicom.parsing import parse, refusing_doubts
from ctflow_fed.ct.volume import AIR, to_hounsfield
from ctflow_fed.errors import VolumeError

__all__ = ["LOSSLESS", "decode_slice"]

LOSSLESS: dict[str, str] = {
    ImplicitVRLittleEndian: "",
    ExplicitVRLittleEndian: "",
    ExplicitVRBigEndian: "",
    DeflatedExplicitVRLittleEndian: "",
    RLELossless: "pydicom",
    JPEGLossless: "gdcm",
    JPEGLosslessSV1: "gdcm",
    JPEGLSLossless: "gdcm",
    JPEG2000Lossless: "gdcm",
    JPEG2000: "gdcm",  # may be lossy: see `_refuse_other_streams`
}
"""Each transfer syntax that is read, and the one decoder that reads it.

The decoder is named so that no other installed package changes what is read.
"""

TISSUE_HU = (-900, 3071)
"""Between these a declared padding value cannot be told from the patient."""

_KEYWORDS = (
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
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "PixelData",
)

Stored = np.ndarray
"""Stored values [rows, cols], int16 or uint16, before their rescale."""

Padding = Bool[np.ndarray, "rows cols"]
"""Which pixels hold the declared padding value."""


def decode_slice(
    path: Path, slope: float, intercept: float
) -> Int16[np.ndarray, "rows cols"]:
    """Decode one file to HU, padding as air.

    Raises:
        VolumeError: for pixels that are absent, truncated, lossy or undecodable.
    """
    dataset = parse(path, _KEYWORDS, pixels=True)
    with refusing_doubts(
        "expected whole and decodable pixel data in every slice, got a slice that is "
        "truncated or broken; export the series again"
    ):
        stored = _stored_values(dataset)
        padding = _padding(dataset, stored, slope, intercept)
        if dataset.HighBit != dataset.BitsStored - 1:
            raise ValueError("a CT slice has its unused bits on top")
        unused = 16 - int(dataset.BitsStored)  # may hold an overlay of old scanners
        values = ((stored << unused) >> unused).astype(np.float64)
    hu = to_hounsfield(values * slope + intercept)
    hu[padding] = AIR
    return hu


def _stored_values(dataset: Dataset) -> Stored:
    """Decode the only frame, with all of its 16 bits."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if LOSSLESS[syntax] == "gdcm":
        _refuse_other_streams(dataset)
    stored, _ = get_decoder(syntax).as_array(
        dataset,
        index=0,
        raw=True,
        decoding_plugin=LOSSLESS[syntax],
        correct_unused_bits=False,  # type: ignore[arg-type]  # mistyped there
    )
    if stored.shape != (dataset.Rows, dataset.Columns) or stored.itemsize != 2:
        raise ValueError("the decoder returned another picture than the header's")
    return stored


def _refuse_other_streams(dataset: Dataset) -> None:
    """Refuse a compressed stream that is lossy, or another picture than the header's.

    Syntax .91 may be lossy even with the reversible wavelet, which can be cut short,
    so that the header must say in words that nothing was lost.
    """
    stream = read_codestream(get_frame(dataset.PixelData, 0, number_of_frames=1))
    size = (stream.rows, stream.columns, stream.components)
    if size != (dataset.Rows, dataset.Columns, 1) or not 8 < stream.precision <= 16:
        raise ValueError("the stream holds another picture than the header's")
    may_be_lossy = dataset.file_meta.TransferSyntaxUID == JPEG2000
    declared_lossless = dataset.get("LossyImageCompression") == "00"
    if not stream.reversible or (may_be_lossy and not declared_lossless):
        raise VolumeError(
            "expected losslessly compressed slices, got one that is lossy or not "
            "declared lossless; export the original, uncompressed"
        )


def _padding(
    dataset: Dataset, stored: Stored, slope: float, intercept: float
) -> Padding:
    """Find the pixels that hold the declared padding, refused when it looks like HU."""
    ends = [
        _as_stored(dataset, keyword, stored.dtype)
        for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")
        if dataset.get_item(keyword) is not None
    ]
    if not ends:
        return np.zeros(stored.shape, bool)
    padding: Padding = (stored >= min(ends)) & (stored <= max(ends))
    low, high = TISSUE_HU
    lowest, highest = (end * slope + intercept for end in (min(ends), max(ends)))
    if lowest <= high and highest >= low and padding.any():
        raise VolumeError(
            "expected padding outside of the HU of a patient, got slices whose "
            "declared padding value could be tissue; export the series without padding"
        )
    return padding


def _as_stored(dataset: Dataset, keyword: str, dtype: np.dtype) -> int:
    """Return a padding value as the pixels hold it, whatever sign its header gives."""
    raw = dataset.get_item(keyword).value
    order: Literal["little", "big"] = (
        "little" if dataset.original_encoding[1] else "big"
    )
    if len(raw) != dtype.itemsize:
        raise ValueError("a padding value has the size of a pixel")
    return int.from_bytes(raw, order, signed=dtype.kind == "i")
