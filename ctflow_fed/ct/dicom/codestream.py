"""The headers of JPEG, JPEG-LS and JPEG 2000 streams: their size, and what was lost.

They are read before a decoder is called, because GDCM ends the process when a stream
has another size than the DICOM header says, and because some streams are lossy under
a lossless transfer syntax.
"""

import struct
from dataclasses import dataclass

__all__ = ["Codestream", "read_codestream"]

_JPEG = 0xFFD8
_JPEG_FRAMES = (0xFFC0, 0xFFC1)
"""Baseline and extended sequential: cosine transforms, which always lose something."""

_JPEG_LOSSLESS_FRAME = 0xFFC3
_JPEG_LS_FRAME = 0xFFF7
_JPEG_SCAN = 0xFFDA
_JPEG_2000 = 0xFF4F
_SIZE = 0xFF51
_CODING_STYLE = 0xFF52
_CODING_OF_COMPONENT = 0xFF53
_TILE = 0xFF90

_JPEG_KINDS = (*_JPEG_FRAMES, _JPEG_LOSSLESS_FRAME, _JPEG_LS_FRAME)
_ONE_FRAME = (*_JPEG_KINDS, _SIZE, _CODING_STYLE)


@dataclass(frozen=True)
class Codestream:
    """What a stream says of itself; ``reversible`` when its coding loses nothing."""

    rows: int
    columns: int
    precision: int
    components: int
    reversible: bool


def read_codestream(stream: bytes) -> Codestream:
    """Read the main header; ``ValueError`` or ``struct.error`` when it is not whole."""
    (start,) = struct.unpack_from(">H", stream)
    if start == _JPEG_2000:
        return _wavelet(_segments(stream, _TILE))
    if start == _JPEG:
        return _jpeg(_segments(stream, _JPEG_SCAN))
    raise ValueError("expected a JPEG or JPEG 2000 stream")


def _segments(stream: bytes, last: int) -> dict[int, bytes]:
    """Return the segments up to ``last`` by their marker."""
    found: dict[int, bytes] = {}
    offset, marker = 2, 0
    while marker != last:
        marker, length = struct.unpack_from(">HH", stream, offset)
        if marker in found and marker in _ONE_FRAME:
            raise ValueError("expected one frame in a stream")
        found[marker] = stream[offset + 4 : offset + 2 + length]
        offset += 2 + max(2, length)
    return found


def _wavelet(segments: dict[int, bytes]) -> Codestream:
    """Read SIZ and COD (ISO 15444-1, A.5 and A.6); 5-3 is the reversible wavelet."""
    right, bottom, left, top, components, depth = struct.unpack_from(
        ">2x4I16xHB", segments.get(_SIZE, b"")
    )
    coding_style = segments.get(_CODING_STYLE, b"")
    return Codestream(
        rows=bottom - top,
        columns=right - left,
        precision=(depth & 0x7F) + 1,
        components=components,
        reversible=coding_style[9:10] == b"\1" and _CODING_OF_COMPONENT not in segments,
    )


def _jpeg(segments: dict[int, bytes]) -> Codestream:
    """Read SOF and SOS (ISO 10918-1, B.2; 14495-1, C.2): no NEAR, no lost low bits."""
    (kind,) = set(segments) & set(_JPEG_KINDS)
    is_jpeg_ls = kind == _JPEG_LS_FRAME
    precision, rows, columns, components = struct.unpack_from(">BHHB", segments[kind])
    first, _, last = struct.unpack_from(">3x3B", segments[_JPEG_SCAN])
    return Codestream(
        rows=rows,
        columns=columns,
        precision=precision,
        components=components,
        reversible=kind not in _JPEG_FRAMES
        and last & 0x0F == 0
        and not (is_jpeg_ls and first != 0),
    )
