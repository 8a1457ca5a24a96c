"""Weights too large for one message: a stream of bytes, cut into files.

The arrays of a network follow one another as they are encoded, in the order of their
names; the stream is cut every 64 MiB, wherever that is. A message then holds digests
and sizes only, and no process more than a shard at a time.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ctflow_fed.errors import UpdateError
from ctflow_fed.federation.settings import ConfigValue
from ctflow_fed.files import is_sha256, sha256_of, write_bytes

__all__ = [
    "MOST_SHARDS",
    "SHARD_BYTES",
    "Shard",
    "ShardReader",
    "check_shard",
    "shards_from_record",
    "shards_to_record",
    "write_shards",
]

SHARD_BYTES = 64 * 2**20
MOST_SHARDS = 100
"""6.4 GB: as many as a site may have at the server."""


class Shard(NamedTuple):
    """A file by the SHA-256 of its content, which is its name, and its bytes."""

    digest: str
    size: int


def write_shards(
    blocks: Iterable[bytes], folder: Path, size: int = SHARD_BYTES
) -> list[Shard]:
    """Cut a stream into files of ``size`` bytes, the last of them shorter."""
    return [_write(piece, folder) for piece in _pieces(blocks, size)]


class ShardReader:
    """Reads the stream that lies in shards, which were checked before."""

    def __init__(self, folder: Path, shards: Sequence[Shard]) -> None:
        self._paths = [folder / each.digest for each in shards]
        self._left = memoryview(b"")

    def read(self, count: int) -> bytes:
        """Return the next bytes; raises ``UpdateError`` where the stream is short."""
        parts: list[memoryview] = []
        lacking = count
        while lacking:
            if not self._left:
                self._left = self._next()
            parts.append(self._left[:lacking])
            self._left = self._left[lacking:]
            lacking -= len(parts[-1])
        return b"".join(parts)

    def finish(self) -> None:
        """Refuse a stream that goes on after what was read of it."""
        if self._left or self._paths:
            raise UpdateError(
                "expected shards of the length of the round's arrays, got more; "
                "install the same version at the server and at every site"
            )

    def _next(self) -> memoryview:
        if not self._paths:
            raise UpdateError(
                "expected shards of the length of the round's arrays, got less; "
                "install the same version at the server and at every site"
            )
        return memoryview(self._paths.pop(0).read_bytes())


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


def shards_to_record(shards: Sequence[Shard]) -> dict[str, ConfigValue]:
    """Return shards as values that a message can hold."""
    return {
        "digests": ",".join(each.digest for each in shards),
        "sizes": ",".join(str(each.size) for each in shards),
    }


def shards_from_record(record: Mapping[str, object]) -> list[Shard]:
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
            return [Shard(n, int(c)) for n, c in zip(names, counts, strict=True)]
    raise UpdateError(
        f"expected digests and sizes of at most {MOST_SHARDS} shards, got something "
        "else; install the same version at the server and at every site"
    )


def _pieces(blocks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Cut a stream anew."""
    piece = bytearray()
    for block in blocks:
        view = memoryview(block)
        while len(view):
            taken = view[: size - len(piece)]
            piece += taken
            view = view[len(taken) :]
            if len(piece) == size:
                yield bytes(piece)
                piece.clear()
    if piece:
        yield bytes(piece)


def _write(content: bytes, folder: Path) -> Shard:
    digest = hashlib.sha256(content).hexdigest()
    write_bytes(folder / digest, content)
    return Shard(digest, len(content))
