"""Arrays as they travel: in full, in half, or in a quarter of the bytes.

Nothing received is ever parsed: an array is little-endian bytes whose length follows
from its shape and the precision, and what they decode to is finite or refused.

    float32     4 bytes a value, exact
    bfloat16    2 bytes a value
    int8        a float32 scale before each block of 256, and 1 byte a value

Both lossy ones round to the nearest even and send changes, not values. What rounding
takes from a change is added to the next one (error feedback, arXiv 1901.09847), so
that over the rounds nothing is lost.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ctflow_fed.errors import UpdateError
from ctflow_fed.federation.arrays import (
    Arrays,
    Manifest,
    Run,
    manifest_of,
    runs_of,
    values_of,
)
from ctflow_fed.federation.payload import check_finite, check_manifest
from ctflow_fed.threads import each_ahead

__all__ = [
    "PRECISIONS",
    "RAW",
    "Compressed",
    "Wire",
    "WireArray",
    "bytes_for",
    "bytes_of",
    "compress",
    "decoded",
    "encoded_bytes",
    "joined",
    "pack",
    "packed",
    "unpack",
]

RAW = "ctflow.raw"
"""How an array is serialised: not at all."""

BLOCK = 256  # values that share a scale
LARGEST_CODE = 127
CODED = np.dtype([("scale", "<f4"), ("codes", "i1", BLOCK)])


class WireArray(NamedTuple):
    """One array as it travels; ``dtype`` is the name of a precision."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


Wire = Mapping[str, WireArray]
"""The arrays of a message by name."""


class Compressed(NamedTuple):
    """A change as it travels, what arrives of it, and what is left for the next."""

    data: bytes
    arrived: NDArray[np.float32]
    residual: NDArray[np.float32]


def pack(arrays: Arrays, precision: str = "float32") -> dict[str, WireArray]:
    """Return arrays as they travel."""
    manifest = manifest_of(arrays)
    return joined(packed(arrays, manifest, precision), manifest, precision)


def packed(
    arrays: Arrays, manifest: Manifest, precision: str = "float32"
) -> Iterator[tuple[str, bytes]]:
    """Yield the bytes of arrays as they travel, run by run, each with its name."""

    def encoded(run: Run) -> bytes:
        return CODECS[precision].encode(values_of(arrays, run))

    for run, data in each_ahead(encoded, runs_of(manifest)):
        yield run.name, data


def joined(
    pieces: Iterable[tuple[str, bytes]], manifest: Manifest, precision: str
) -> dict[str, WireArray]:
    """Return arrays of which `packed` gave the pieces."""
    parts: dict[str, list[bytes]] = {name: [] for name in sorted(manifest)}
    for name, data in pieces:
        parts[name].append(data)
    return {
        name: WireArray(precision, manifest[name], b"".join(each))
        for name, each in parts.items()
    }


def unpack(
    wire: Wire, manifest: Manifest, precision: str = "float32"
) -> dict[str, NDArray[np.float32]]:
    """Return the arrays of a message; any that the manifest does not say is refused."""
    check_manifest(manifest, {name: tuple(each.shape) for name, each in wire.items()})
    return {name: _decode(each, precision) for name, each in wire.items()}


def _decode(array: WireArray, precision: str) -> NDArray[np.float32]:
    """Return the values of an array, finite and of the length that its shape says."""
    count = math.prod(array.shape)
    if array.dtype != precision or len(array.data) != bytes_for(count, precision):
        raise UpdateError(
            f"expected every array as {precision} of the length that its shape says, "
            "got another; install the same version at the server and at every site"
        )
    return decoded(array.data, precision).reshape(array.shape)


def decoded(data: bytes, precision: str) -> NDArray[np.float32]:
    """Return the values of a run; where they are not finite, it is refused."""
    return check_finite(CODECS[precision].decode(data))


def bytes_for(count: int, precision: str) -> int:
    """Return how many bytes so many values of an array have as they travel."""
    return CODECS[precision].length_of(count)


def encoded_bytes(manifest: Manifest, precision: str) -> int:
    """Return how many bytes the arrays of a manifest have as they travel."""
    counts = (math.prod(shape) for shape in manifest.values())
    return sum(bytes_for(count, precision) for count in counts)


def compress(
    change: NDArray[np.float32], residual: NDArray[np.float32] | None, precision: str
) -> Compressed:
    """Encode a change of one axis with what was left of the one before.

    ``change`` is used up: what is left of it is written into it. Numbers that are not
    finite raise ``UpdateError``.
    """
    if residual is not None:
        change += residual
    data = CODECS[precision].encode(change)
    arrived = decoded(data, precision)
    change -= arrived
    return Compressed(data, arrived, change)


def bytes_of(wire: Wire) -> int:
    """Return how many bytes the values of arrays have as they travel."""
    return sum(len(each.data) for each in wire.values())


class _Codec(NamedTuple):
    """Bytes for a number of values, values to bytes, and back; all of one axis."""

    length_of: Callable[[int], int]
    encode: Callable[[NDArray[np.float32]], bytes]
    decode: Callable[[bytes], NDArray[np.float32]]


def _encode_float32(values: NDArray[np.float32]) -> bytes:
    return np.ascontiguousarray(values, "<f4").tobytes()


def _decode_float32(data: bytes) -> NDArray[np.float32]:
    return np.frombuffer(data, "<f4").astype(np.float32)


def _encode_bfloat16(values: NDArray[np.float32]) -> bytes:
    halves = torch.from_numpy(np.ascontiguousarray(values)).to(torch.bfloat16)
    codes: NDArray[np.int16] = halves.view(torch.int16).numpy()
    return codes.astype("<i2", copy=False).tobytes()


def _decode_bfloat16(data: bytes) -> NDArray[np.float32]:
    """Fill up the bits that a half has not."""
    bits = np.frombuffer(data, "<u2").astype(np.uint32)
    bits <<= 16
    return bits.view(np.float32)


def _encode_int8(values: NDArray[np.float32]) -> bytes:
    """Write the scale of each block, then a code of -127 to 127 for each value."""
    spare = -len(values) % BLOCK
    filled = np.pad(values, (0, spare)) if spare else values
    blocks = filled.reshape(-1, BLOCK)
    coded = np.empty(len(blocks), CODED)
    with np.errstate(all="ignore"):  # what is not finite is found when it is decoded
        scale = np.abs(blocks).max(axis=1) / np.float32(LARGEST_CODE)
        code = blocks / np.where(scale > 0, scale, np.float32(1))[:, None]
        np.rint(code, out=code)
        np.clip(code, -LARGEST_CODE, LARGEST_CODE, out=code)
        coded["scale"], coded["codes"] = scale, code
    return coded.tobytes()[: _int8_length(len(values))]


def _decode_int8(data: bytes) -> NDArray[np.float32]:
    count = _int8_values(len(data))
    coded = np.frombuffer(data + bytes(-count % BLOCK), CODED)
    values = coded["codes"].astype(np.float32)
    with np.errstate(all="ignore"):
        values *= coded["scale"][:, None]
    return values.reshape(-1)[:count]


def _int8_length(count: int) -> int:
    return 4 * math.ceil(count / BLOCK) + count


def _int8_values(length: int) -> int:
    """Return how many values have been encoded to so many bytes."""
    return length - 4 * math.ceil(length / (BLOCK + 4))


CODECS = {
    "float32": _Codec(lambda count: 4 * count, _encode_float32, _decode_float32),
    "bfloat16": _Codec(lambda count: 2 * count, _encode_bfloat16, _decode_bfloat16),
    "int8": _Codec(_int8_length, _encode_int8, _decode_int8),
}

PRECISIONS = tuple(CODECS)
"""Every precision by its name."""
