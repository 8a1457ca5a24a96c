"""The pixels of a file as HU: decoded by one named decoder, or refused."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int16
from pydicom import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from ctflow_fed.ct.dicom.codestream import read_codestream
from ctflow_fed.ct.dicom.elements import integer, texts
from ctflow_fed.ct.dicom.parsing import parse_inflated, refusing_doubts
from ctflow_fed.ct.volume import AIR, HU_RANGE
from ctflow_fed.errors import VolumeError

__all__ = ["LOSSLESS", "SYNTAXES", "PixelFormat", "decode_file", "pixel_format"]

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

_JPEG_SPECTRAL = "1.2.840.10008.1.2.4.53"
_JPEG_PROGRESSIVE = "1.2.840.10008.1.2.4.55"

SYNTAXES: dict[str, str] = {
    **LOSSLESS,
    JPEGLSNearLossless: "gdcm",
    JPEGBaseline8Bit: "none",
    JPEGExtended12Bit: "none",
    _JPEG_SPECTRAL: "none",
    _JPEG_PROGRESSIVE: "none",
}
"""... and those that always lose something, of which most have no decoder here."""

TISSUE_HU = (-900, 3071)
"""Between these a declared padding value cannot be told from the patient."""

_BROKEN = (
    "expected whole and decodable pixel data in every slice, got a slice that is "
    "truncated or broken; export the series again"
)

Stored = np.ndarray
"""Stored values [rows, cols], int16 or uint16, before their rescale."""

Plane = Int16[np.ndarray, "rows cols"]
"""Where one slice is put, in HU."""

Rescale = tuple[float, float]
"""Slope and intercept."""

Padding = Bool[np.ndarray, "rows cols"]
"""Which pixels hold the declared padding value."""


@dataclass(frozen=True)
class PixelFormat:
    """Where the pixels of a file lie, and what its header says of them.

    ``offset`` is that of the element itself; ``padding`` are the lowest and the highest
    stored value that stand for no patient, none where None.
    """

    syntax: str
    offset: int
    frames: int
    rows: int
    columns: int
    bits_stored: int
    signed: bool
    declared_lossless: bool
    padding: tuple[int, int] | None


def pixel_format(dataset: Dataset, offset: int, frames: int) -> PixelFormat:
    """Read the format of the pixels; a contradiction raises ``ValueError``."""
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    number = partial(integer, dataset, big=syntax == ExplicitVRBigEndian)
    signed, bits = number("PixelRepresentation"), number("BitsStored")
    if signed not in (0, 1) or not 1 <= bits <= 16 or number("HighBit") != bits - 1:
        raise VolumeError(_BROKEN)  # the unused bits of a CT slice are on top
    ends = [  # as the pixels hold them, whatever sign the header gives
        number(keyword, signed=bool(signed))
        for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")
        if dataset.get_item(keyword) is not None
    ]
    return PixelFormat(
        syntax=syntax,
        offset=offset,
        frames=frames,
        rows=number("Rows"),
        columns=number("Columns"),
        bits_stored=bits,
        signed=bool(signed),
        declared_lossless=texts(dataset, "LossyImageCompression") == ("00",),
        padding=(min(ends), max(ends)) if ends else None,
    )


def decode_file(
    path: Path,
    pixels: PixelFormat,
    rescales: Sequence[Rescale],
    planes: Sequence[Plane],
    *,
    lossy: bool = False,
) -> int:
    """Decode the frames of a file into ``planes``; count the voxels beyond int16.

    Raises:
        VolumeError: for pixels that are absent, truncated or undecodable, and for those
            that are lossy unless ``lossy`` ones are accepted.
    """
    beyond = 0
    with refusing_doubts(_BROKEN):
        stored = _stored_frames(path, pixels, lossy=lossy)
        for values, rescale, plane in zip(stored, rescales, planes, strict=True):
            beyond += _rescale(values, pixels, rescale, plane)
    return beyond


def _stored_frames(path: Path, pixels: PixelFormat, *, lossy: bool) -> Iterator[Stored]:
    """Yield the stored values of each frame of a file, in its order."""
    if SYNTAXES[pixels.syntax]:
        yield from _decoded(path, pixels, lossy=lossy)
    elif pixels.syntax == DeflatedExplicitVRLittleEndian:
        content = io.BytesIO(parse_inflated(path))
        yield from _native(content, len(content.getbuffer()), pixels)
    else:
        with path.open("rb") as file:
            yield from _native(file, _enter(file, pixels), pixels)


def _rescale(
    stored: Stored, pixels: PixelFormat, rescale: Rescale, plane: Plane
) -> int:
    """Fill ``plane`` with whole HU, padding as air; count the voxels beyond int16."""
    slope, intercept = rescale
    padding = None
    if pixels.padding is not None:
        padding = _padding(stored, pixels.padding, slope, intercept)
    unused = 16 - pixels.bits_stored  # may hold an overlay of old scanners
    if unused:
        stored = (stored << unused) >> unused
    beyond = 0
    low, high = HU_RANGE
    ends = [int(stored.min()) + intercept, int(stored.max()) + intercept]
    if slope == 1 and intercept.is_integer() and -high <= ends[0] <= ends[1] <= high:
        # All of it fits into int16, where sums wrap around to what they should be.
        offset = np.int32(intercept).astype(np.int16)
        np.add(stored.view(np.int16), offset, out=plane)
        np.maximum(plane, low, out=plane)
    else:
        values = np.rint(stored * slope + intercept)
        beyond = int(np.count_nonzero(values > high))
        plane[:] = np.clip(values, low, high)
    if padding is not None:
        plane[padding] = AIR
    return beyond


def _dtype(pixels: PixelFormat) -> np.dtype:
    big = pixels.syntax == ExplicitVRBigEndian
    return np.dtype(f"{'>' if big else '<'}{'i' if pixels.signed else 'u'}2")


def _native(
    file: io.BufferedIOBase, length: int, pixels: PixelFormat
) -> Iterator[Stored]:
    """Read uncompressed frames one by one."""
    size = 2 * pixels.rows * pixels.columns
    if length - size * pixels.frames not in (0, length % 2):
        raise ValueError("the pixel data have another size than the header's")
    dtype = _dtype(pixels)
    for _ in range(pixels.frames):
        values = np.frombuffer(file.read(size), dtype)
        native = values.astype(dtype.newbyteorder("="), copy=False)
        yield native.reshape(pixels.rows, pixels.columns)


def _enter(file: io.BufferedIOBase, pixels: PixelFormat) -> int:
    """Go to the first byte of the pixel data and return the length of the element."""
    implicit = pixels.syntax == ImplicitVRLittleEndian
    big = pixels.syntax == ExplicitVRBigEndian
    file.seek(pixels.offset)
    element = file.read(8 if implicit else 12)
    if element[:4] != (b"\x7f\xe0\0\x10" if big else b"\xe0\x7f\x10\0"):
        raise ValueError("there are no pixel data")
    return int.from_bytes(element[-4:], "big" if big else "little")


def _decoded(path: Path, pixels: PixelFormat, *, lossy: bool) -> Iterator[Stored]:
    """Decode compressed frames one by one."""
    decoder = SYNTAXES[pixels.syntax]
    with path.open("rb") as file:
        _enter(file, pixels)
        content = file.read()
    expected = np.dtype("i2" if pixels.signed else "u2")
    for stream in generate_frames(content, number_of_frames=pixels.frames):
        if decoder == "gdcm":
            _refuse_other_streams(stream, pixels, lossy=lossy)
        values = _decode(stream, pixels, decoder)
        if values.shape != (pixels.rows, pixels.columns) or values.dtype != expected:
            raise ValueError("the decoder returned another picture than the header's")
        yield values


def _decode(stream: bytes, pixels: PixelFormat, decoder: str) -> Stored:
    """Decode one frame, with all of its 16 bits."""
    values, _ = get_decoder(UID(pixels.syntax)).as_array(
        encapsulate([stream]),
        index=0,
        validate=False,  # done above; it doubts streams as long as their pixels
        raw=True,
        decoding_plugin=decoder,
        correct_unused_bits=False,  # type: ignore[arg-type]  # mistyped there
        number_of_frames=1,  # type: ignore[arg-type]
        rows=pixels.rows,  # type: ignore[arg-type]
        columns=pixels.columns,  # type: ignore[arg-type]
        samples_per_pixel=1,  # type: ignore[arg-type]
        bits_allocated=16,  # type: ignore[arg-type]
        bits_stored=pixels.bits_stored,  # type: ignore[arg-type]
        pixel_representation=int(pixels.signed),  # type: ignore[arg-type]
        photometric_interpretation="MONOCHROME2",  # type: ignore[arg-type]
        pixel_keyword="PixelData",  # type: ignore[arg-type]
    )
    return values


def _refuse_other_streams(stream: bytes, pixels: PixelFormat, *, lossy: bool) -> None:
    """Refuse a compressed stream that is lossy, or another picture than the header's.

    Syntax .91 may be lossy even with the reversible wavelet, which can be cut short,
    so that the header must say in words that nothing was lost.
    """
    found = read_codestream(stream)
    size = (found.rows, found.columns, found.components)
    if size != (pixels.rows, pixels.columns, 1) or not 8 < found.precision <= 16:
        raise ValueError("the stream holds another picture than the header's")
    undeclared = pixels.syntax == JPEG2000 and not pixels.declared_lossless
    if not lossy and (undeclared or not found.reversible):
        raise VolumeError(
            "expected losslessly compressed slices, got one that is lossy or not "
            "declared lossless; export the original, uncompressed"
        )


def _padding(
    stored: Stored, ends: tuple[int, int], slope: float, intercept: float
) -> Padding:
    """Find the pixels that hold the declared padding, refused when it looks like HU."""
    padding: Padding = (stored >= ends[0]) & (stored <= ends[1])
    low, high = TISSUE_HU
    lowest, highest = (end * slope + intercept for end in ends)
    if lowest <= high and highest >= low and padding.any():
        raise VolumeError(
            "expected padding outside of the HU of a patient, got slices whose "
            "declared padding value could be tissue; export the series without padding"
        )
    return padding
