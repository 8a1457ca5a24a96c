"""The pixels of a file as HU: decoded by one named decoder, or refused."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

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

__all__ = [
    "JPEG_8_BIT",
    "LOSSLESS",
    "SYNTAXES",
    "Loss",
    "PixelFormat",
    "decode_file",
    "pixel_format",
]

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
    JPEG2000: "gdcm",  # may be lossy: see `_is_lossy`
}
"""Each transfer syntax that is read, and the one decoder that reads it.

The decoder is named so that no other installed package changes what is read.
"""

_JPEG_SPECTRAL = "1.2.840.10008.1.2.4.53"
_JPEG_PROGRESSIVE = "1.2.840.10008.1.2.4.55"

SYNTAXES: dict[str, str] = {
    **LOSSLESS,
    JPEGLSNearLossless: "gdcm",
    JPEGBaseline8Bit: "gdcm",
    JPEGExtended12Bit: "gdcm",  # of 8 bits; no decoder here vouches for 12
    _JPEG_SPECTRAL: "none",
    _JPEG_PROGRESSIVE: "none",
}
"""... and those that always lose something, of which some have no decoder here."""

JPEG_8_BIT = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit})
"""Those whose pixels may have eight bits."""

TISSUE_HU = (-900, 3071)
"""Between these a declared padding value cannot be told from the patient."""

_BROKEN = (
    "expected whole and decodable pixel data in every slice, got a slice that is "
    "truncated or broken; export the series again"
)

Stored = np.ndarray
"""Stored values [rows, cols], int16 or uint16, before their rescale."""

Frame = tuple[Stored, bool]
"""The values of a frame, and whether their compression may have lost something."""

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
    bits_allocated: int
    bits_stored: int
    signed: bool
    declared_lossless: bool
    padding: tuple[int, int] | None


def pixel_format(dataset: Dataset, offset: int, frames: int) -> PixelFormat:
    """Read the format of the pixels; a contradiction raises ``ValueError``."""
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    number = partial(integer, dataset, big=syntax == ExplicitVRBigEndian)
    signed, bits = number("PixelRepresentation"), number("BitsStored")
    room = number("BitsAllocated")
    if signed not in (0, 1) or not 1 <= bits <= room or number("HighBit") != bits - 1:
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
        bits_allocated=room,
        bits_stored=bits,
        signed=bool(signed),
        declared_lossless=texts(dataset, "LossyImageCompression") == ("00",),
        padding=(min(ends), max(ends)) if ends else None,
    )


class Loss(NamedTuple):
    """What was lost of the frames: voxels beyond int16, and by a lossy compression."""

    beyond: int
    lossy: bool


def decode_file(
    path: Path,
    pixels: PixelFormat,
    rescales: Sequence[Rescale],
    planes: Sequence[Plane],
    *,
    lossy: bool = False,
) -> Loss:
    """Decode the frames of a file into ``planes`` and tell what was lost of them.

    Raises:
        VolumeError: for pixels that are absent, truncated or undecodable, and for those
            that are lossy unless ``lossy`` ones are accepted.
    """
    beyond, lost = 0, False
    with refusing_doubts(_BROKEN):
        stored = _stored_frames(path, pixels, lossy=lossy)
        for frame, rescale, plane in zip(stored, rescales, planes, strict=True):
            values, is_lossy = frame
            beyond += _rescale(values, pixels, rescale, plane)
            lost |= is_lossy
    return Loss(beyond, lost)


def _stored_frames(path: Path, pixels: PixelFormat, *, lossy: bool) -> Iterator[Frame]:
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
) -> Iterator[Frame]:
    """Read uncompressed frames one by one."""
    size = 2 * pixels.rows * pixels.columns
    if length - size * pixels.frames not in (0, length % 2):
        raise ValueError("the pixel data have another size than the header's")
    dtype = _dtype(pixels)
    for _ in range(pixels.frames):
        values = np.frombuffer(file.read(size), dtype)
        native = values.astype(dtype.newbyteorder("="), copy=False)
        yield native.reshape(pixels.rows, pixels.columns), False


def _enter(file: io.BufferedIOBase, pixels: PixelFormat) -> int:
    """Go to the first byte of the pixel data and return the length of the element."""
    implicit = pixels.syntax == ImplicitVRLittleEndian
    big = pixels.syntax == ExplicitVRBigEndian
    file.seek(pixels.offset)
    element = file.read(8 if implicit else 12)
    if element[:4] != (b"\x7f\xe0\0\x10" if big else b"\xe0\x7f\x10\0"):
        raise ValueError("there are no pixel data")
    return int.from_bytes(element[-4:], "big" if big else "little")


def _decoded(path: Path, pixels: PixelFormat, *, lossy: bool) -> Iterator[Frame]:
    """Decode compressed frames one by one."""
    decoder = SYNTAXES[pixels.syntax]
    with path.open("rb") as file:
        _enter(file, pixels)
        content = file.read()
    kind = "i" if pixels.signed else "u"
    expected = np.dtype(f"{kind}{pixels.bits_allocated // 8}")
    for stream in generate_frames(content, number_of_frames=pixels.frames):
        lost = decoder == "gdcm" and _is_lossy(stream, pixels, accepted=lossy)
        values = _decode(stream, pixels, decoder)
        if values.shape != (pixels.rows, pixels.columns) or values.dtype != expected:
            raise ValueError("the decoder returned another picture than the header's")
        yield values.astype(f"{kind}2", copy=False), lost


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
        bits_allocated=pixels.bits_allocated,  # type: ignore[arg-type]
        bits_stored=pixels.bits_stored,  # type: ignore[arg-type]
        pixel_representation=int(pixels.signed),  # type: ignore[arg-type]
        photometric_interpretation="MONOCHROME2",  # type: ignore[arg-type]
        pixel_keyword="PixelData",  # type: ignore[arg-type]
    )
    return values


def _is_lossy(stream: bytes, pixels: PixelFormat, *, accepted: bool) -> bool:
    """Tell whether a compressed stream may have lost something.

    If so it is refused unless that is ``accepted``; and always a stream of another
    picture than the header's. Syntax .91 may be lossy even with the reversible wavelet,
    which can be cut short, so that the header must say in words that nothing was lost.
    """
    found = read_codestream(stream)
    size = (found.rows, found.columns, found.components)
    fewest = pixels.bits_allocated - 7  # bits that the header's room is needed for
    fits = fewest <= found.precision <= pixels.bits_allocated
    if size != (pixels.rows, pixels.columns, 1) or not fits:
        raise ValueError("the stream holds another picture than the header's")
    undeclared = pixels.syntax == JPEG2000 and not pixels.declared_lossless
    lossy = undeclared or not found.reversible
    if lossy and not accepted:
        raise VolumeError(
            "expected losslessly compressed slices, got one that is lossy or not "
            "declared lossless; export the original, uncompressed"
        )
    return lossy


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
