"""Arrays as they travel: in full, in half, or in a quarter of the bytes.

Nothing received is ever parsed: an array is little-endian bytes whose length follows
from its shape and the precision, and what they decode to is finite or refused.

    float32     4 bytes a value, exact
    bfloat16    2 bytes a value
    int8        1 byte a value, and a float32 scale before them for each block of 256

Both lossy ones round to the nearest even and send changes, not values. What rounding
takes from a change is added to the next one (error feedback, arXiv 1901.09847), so
that over the rounds nothing is lost.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ctflow_fed.errors import UpdateError
from ctflow_fed.federation.arrays import Arrays, Manifest, manifest_of
from ctflow_fed.federation.payload import check_finite, check_manifest, minus, plus

__all__ = [
    "PRECISIONS",
    "RAW",
    "Compressed",
    "Wire",
    "WireArray",
    "bytes_of",
    "compress",
    "decode",
    "encoded_bytes",
    "pack",
    "packed",
    "unpack",
]

RAW = "ctflow.raw"
"""How an array is serialised: not at all."""

BLOCK = 256  # values that share a scale
LARGEST_CODE = 127


class WireArray(NamedTuple):
    """One array as it travels; ``dtype`` is the name of a precision."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


Wire = Mapping[str, WireArray]
"""The arrays of a message by name."""


class Compressed(NamedTuple):
    """A change as it travels, what arrives of it, and what is left for the next."""

    wire: Wire
    arrived: Arrays
    residual: Arrays


def pack(arrays: Arrays, precision: str = "float32") -> dict[str, WireArray]:
    """Return arrays as they travel."""
    return dict(packed(arrays, manifest_of(arrays), precision))


def packed(
    arrays: Arrays, manifest: Manifest, precision: str = "float32"
) -> Iterator[tuple[str, WireArray]]:
    """Yield arrays as they travel, in the order of their names."""
    encode = CODECS[precision].encode
    for name in sorted(manifest):
        data = encode(arrays[name].reshape(-1))
        yield name, WireArray(precision, manifest[name], data)


def unpack(
    wire: Wire, manifest: Manifest, precision: str = "float32"
) -> dict[str, NDArray[np.float32]]:
    """Return the arrays of a message; any that the manifest does not say is refused."""
    check_manifest(manifest, {name: tuple(each.shape) for name, each in wire.items()})
    return {name: decode(each, precision) for name, each in wire.items()}


def decode(array: WireArray, precision: str) -> NDArray[np.float32]:
    """Return the values of an array, finite and of the length that its shape says."""
    codec = CODECS[precision]
    expected = codec.length_of(math.prod(array.shape))
    if array.dtype != precision or len(array.data) != expected:
        raise UpdateError(
            f"expected every array as {precision} of the length that its shape says, "
            "got another; install the same version at the server and at every site"
        )
    return check_finite(codec.decode(array.data).reshape(array.shape))


def encoded_bytes(manifest: Manifest, precision: str) -> int:
    """Return how many bytes the arrays of a manifest have as they travel."""
    length_of = CODECS[precision].length_of
    return sum(length_of(math.prod(shape)) for shape in manifest.values())


def compress(change: Arrays, residual: Arrays, precision: str) -> Compressed:
    """Encode a change with what was left of those before, ``residual``.

    ``residual`` may be empty. Numbers that are not finite raise ``UpdateError``.
    """
    wanted = plus(change, residual) if residual else change
    wire = pack(wanted, precision)
    arrived = unpack(wire, manifest_of(wanted), precision)
    return Compressed(wire, arrived, minus(wanted, arrived))


def bytes_of(wire: Wire) -> int:
    """Return how many bytes the values of arrays have as they travel."""
    return sum(len(each.data) for each in wire.values())


class _Codec(NamedTuple):
    """Bytes for a number of values, values to bytes, and back; all of one axis."""

    length_of: Callable[[int], int]
    encode: Callable[[NDArray[np.float32]], bytes]
    decode: Callable[[bytes], NDArray[np.float32]]


def _encode_float32(values: NDArray[np.float32]) -> bytes:
    return values.astype("<f4").tobytes()


def _decode_float32(data: bytes) -> NDArray[np.float32]:
    return np.frombuffer(data, "<f4").astype(np.float32)


def _encode_bfloat16(values: NDArray[np.float32]) -> bytes:
    halves = torch.from_numpy(np.ascontiguousarray(values)).to(torch.bfloat16)
    codes: NDArray[np.int16] = halves.view(torch.int16).numpy()
    return codes.astype("<i2").tobytes()


def _decode_bfloat16(data: bytes) -> NDArray[np.float32]:
    halves = torch.from_numpy(np.frombuffer(data, "<i2").astype(np.int16))
    values: NDArray[np.float32] = halves.view(torch.bfloat16).float().numpy()
    return values


def _encode_int8(values: NDArray[np.float32]) -> bytes:
    """Write the scales of all blocks, then a code of -127 to 127 for each value."""
    blocks = _blocks(values)
    with np.errstate(all="ignore"):  # what is not finite is found when it is decoded
        furthest = np.maximum(blocks.max(axis=1), np.abs(blocks.min(axis=1)))
        scales: NDArray[np.float32] = furthest / np.float32(LARGEST_CODE)
        codes = blocks / np.where(scales > 0, scales, np.float32(1))[:, None]
        np.rint(codes, out=codes)
        np.clip(codes, -LARGEST_CODE, LARGEST_CODE, out=codes)
        flat: NDArray[np.int8] = codes.astype(np.int8).reshape(-1)[: len(values)]
    return scales.astype("<f4").tobytes() + flat.tobytes()


def _decode_int8(data: bytes) -> NDArray[np.float32]:
    count = _int8_values(len(data))
    codes = np.frombuffer(data, np.int8, count, len(data) - count)
    scales = np.frombuffer(data, "<f4", math.ceil(count / BLOCK)).astype(np.float32)
    with np.errstate(all="ignore"):
        values = _blocks(codes.astype(np.float32)) * scales[:, None]
    return values.reshape(-1)[:count]


def _blocks(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return values as [block, value], the last block filled with zeros."""
    spare = -len(values) % BLOCK
    filled = np.pad(values, (0, spare)) if spare else values
    return filled.reshape(-1, BLOCK)


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
