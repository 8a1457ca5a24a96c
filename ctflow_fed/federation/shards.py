"""Weights too large for one message: a stream of bytes, cut into files.

The arrays of a network follow one another as they are encoded, in the order of their
names; the stream is cut every 64 MiB, wherever that is. A message then holds digests
and sizes only, and no process more than a shard at a time.
"""

import hashlib
import math
import re
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ctflow_fed.errors import UpdateError
from ctflow_fed.federation.arrays import Arrays, Manifest, PiecedArrays, Run
from ctflow_fed.federation.encoding import (
    Wire,
    bytes_for,
    bytes_of,
    decoded,
    encoded_bytes,
    joined,
    unpack,
)
from ctflow_fed.federation.settings import ConfigValue
from ctflow_fed.files import is_sha256, sha256_of, write_atomically
from ctflow_fed.threads import ahead

__all__ = [
    "CARGOES",
    "MOST_SHARDS",
    "SHARD_BYTES",
    "Cargo",
    "Shard",
    "ShardStream",
    "cargo_bytes",
    "check_shard",
    "check_shards",
    "fits_message",
    "shards_from_record",
    "shards_named",
    "shards_to_record",
    "stow",
    "unstow",
    "write_shards",
]

SHARD_BYTES = 64 * 2**20
MOST_SHARDS = 100
"""6.4 GB: as many as a site may have at the server."""


class Shard(NamedTuple):
    """A file by the SHA-256 of its content, which is its name, and its bytes."""

    digest: str
    size: int


CARGOES = ("arrays", "change", "base")
"""The records of a message that hold arrays or name their shards."""

Cargo = Wire | tuple[Shard, ...]
"""Arrays on their way: in a message, or in shards that the message names."""


def cargo_bytes(cargo: Cargo) -> int:
    """Return how many bytes of arrays travel."""
    if isinstance(cargo, tuple):
        return sum(each.size for each in cargo)
    return bytes_of(cargo)


def write_shards(
    blocks: Iterable[bytes], folder: Path, size: int = SHARD_BYTES
) -> list[Shard]:
    """Cut a stream into files of ``size`` bytes, the last of them shorter."""
    return [_write(piece, folder) for piece in _pieces(blocks, size)]


def fits_message(manifest: Manifest, precision: str) -> bool:
    """Tell whether arrays go with a message: those larger than a shard go as shards."""
    return encoded_bytes(manifest, precision) <= SHARD_BYTES


def stow(
    pieces: Iterable[tuple[str, bytes]],
    manifest: Manifest,
    precision: str,
    folder: Path,
) -> Cargo:
    """Return arrays as they go with a message, or put them into shards in a folder.

    ``pieces`` are those that `packed` gives.
    """
    if fits_message(manifest, precision):
        return joined(pieces, manifest, precision)
    return tuple(write_shards((data for _, data in pieces), folder, SHARD_BYTES))


def unstow(cargo: Cargo, manifest: Manifest, precision: str, folder: Path) -> Arrays:
    """Return the arrays of a message, or of shards in a folder that were checked.

    Those in shards are read when they are asked for, and refused then where they are
    not finite. Raises ``UpdateError`` for what the manifest does not say.
    """
    if isinstance(cargo, tuple):
        return _arrays_in(cargo, manifest, precision, folder)
    return unpack(cargo, manifest, precision)


def _arrays_in(
    shards: Sequence[Shard], manifest: Manifest, precision: str, folder: Path
) -> Arrays:
    places, end = {}, 0
    for name, shape in sorted(manifest.items()):
        places[name] = end
        end += encoded_bytes({name: shape}, precision)
    got = sum(each.size for each in shards)
    if got != end:
        raise UpdateError(
            f"expected shards of the length of the round's arrays, got "
            f"{'more' if got > end else 'less'}; install the same version at the "
            "server and at every site"
        )
    stream = ShardStream(folder, shards)

    def values(run: Run) -> NDArray[np.float32]:
        first, last, _ = run.span.indices(math.prod(manifest[run.name]))
        begin, end = bytes_for(first, precision), bytes_for(last, precision)
        place = places[run.name] + begin
        return decoded(stream.read(place, end - begin), precision)

    return PiecedArrays(manifest, values)


class ShardStream:
    """The stream that lies in shards, read from any place."""

    def __init__(self, folder: Path, shards: Sequence[Shard]) -> None:
        self._paths = [folder / each.digest for each in shards]
        self._ends = list(accumulate(each.size for each in shards))

    def read(self, begin: int, count: int) -> bytes:
        """Return ``count`` bytes; raises ``UpdateError`` where the stream is short."""
        parts: list[bytes] = []
        while count:
            number = bisect_right(self._ends, begin)
            if number == len(self._ends):
                raise UpdateError("expected a longer stream of shards; send it again")
            before = self._ends[number - 1] if number else 0
            with self._paths[number].open("rb") as file:
                file.seek(begin - before)
                parts.append(file.read(min(count, self._ends[number] - begin)))
            if not parts[-1]:
                raise UpdateError("expected a shard of its length; send it again")
            begin, count = begin + len(parts[-1]), count - len(parts[-1])
        return b"".join(parts)


def check_shard(path: Path, shard: Shard) -> None:
    """Refuse a file that is not the shard that was named."""
    if (
        not path.is_file()
        or path.stat().st_size != shard.size
        or sha256_of(path) != shard.digest
    ):
        raise UpdateError(
            "expected a shard of the digest that its message names, got another or "
            "none; send it again"
        )


def check_shards(folder: Path, shards: Sequence[Shard]) -> None:
    """Refuse the first of the shards in a folder that is not the one that was named."""

    def check(number: int) -> None:
        shard = shards[number]
        try:
            check_shard(folder / shard.digest, shard)
        except UpdateError as error:
            what = f"shard {number + 1} of {len(shards)}: {error}"
            raise UpdateError(what) from None

    deque(ahead(check, range(len(shards))), maxlen=0)


def shards_to_record(shards: Sequence[Shard]) -> dict[str, ConfigValue]:
    """Return shards as values that a message can hold."""
    return {
        "digests": ",".join(each.digest for each in shards),
        "sizes": ",".join(str(each.size) for each in shards),
    }


def shards_named(records: Mapping[str, Mapping[str, object]]) -> tuple[Shard, ...]:
    """Return all shards that the records of a message name, where they have arrays."""
    named = (shards_from_record(records[name]) for name in CARGOES if name in records)
    return tuple(shard for shards in named for shard in shards)


def shards_from_record(record: Mapping[str, object]) -> tuple[Shard, ...]:
    """Read what `shards_to_record` gave; names that are no digests are refused."""
    digests, sizes = record.get("digests"), record.get("sizes")
    if isinstance(digests, str) and isinstance(sizes, str):
        names, counts = digests.split(","), sizes.split(",")
        if (
            len(names) == len(counts) <= MOST_SHARDS
            and all(map(is_sha256, names))
            and all(re.fullmatch(r"[0-9]{1,8}", each) for each in counts)
            and all(0 < int(each) <= SHARD_BYTES for each in counts)
        ):
            pairs = zip(names, counts, strict=True)
            return tuple(Shard(name, int(count)) for name, count in pairs)
    raise UpdateError(
        f"expected digests and sizes of at most {MOST_SHARDS} shards, got something "
        "else; install the same version at the server and at every site"
    )


def _pieces(blocks: Iterable[bytes], size: int) -> Iterator[bytearray]:
    """Cut a stream anew."""
    piece = bytearray()
    for block in blocks:
        view = memoryview(block)
        while len(view):
            taken = view[: size - len(piece)]
            piece += taken
            view = view[len(taken) :]
            if len(piece) == size:
                yield piece
                piece = bytearray()
    if piece:
        yield piece


def _write(content: bytearray, folder: Path) -> Shard:
    digest = hashlib.sha256(content).hexdigest()
    write_atomically(folder / digest, lambda partial: partial.write_bytes(content))
    return Shard(digest, len(content))
