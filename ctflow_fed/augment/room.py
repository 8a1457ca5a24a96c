"""Whether the disk has room for what is to be drawn."""

import errno
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ctflow_fed.augment.request import SynthRequest
from ctflow_fed.errors import IncompleteError

__all__ = ["FULL", "Room", "is_full"]

FULL = "the disk is full"
"""Why a volume could not be written: the next one cannot either."""

PACKED = 0.4
"""Bytes of a packed volume for each of its own: what a disk must have at the least."""


@dataclass(frozen=True)
class Room:
    """The free disk of a folder, for volumes of ``pixels`` a side."""

    folder: Path
    pixels: int

    def check(self, requests: Collection[SynthRequest]) -> None:
        """Raise ``IncompleteError`` where the volumes of requests do not fit."""
        needed = sum(map(self._bytes, requests))
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise IncompleteError(
                f"expected {needed / 1e9:.2f} GB of free disk for {len(requests)} "
                f"volumes, found {free / 1e9:.2f} GB; free some, or choose another "
                "folder, and repeat the command"
            )

    def is_left(self, requests: Collection[SynthRequest]) -> bool:
        """Tell whether the largest volume of requests fits."""
        needed = max(map(self._bytes, requests), default=0)
        return needed <= shutil.disk_usage(self.folder).free

    def _bytes(self, request: SynthRequest) -> int:
        return int(PACKED * 2 * request.slices * self.pixels**2)


def is_full(error: Exception) -> bool:
    """Tell whether an error says that a disk, or somebody's share of it, is full."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return isinstance(error, OSError) and error.errno in full
