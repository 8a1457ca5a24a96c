"""Locks by which a folder has one writer at a time, however the writer ends."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ctflow_fed.errors import IncompleteError

__all__ = ["awaited", "is_locked", "locked"]


@contextmanager
def locked(path: Path, busy: str) -> Iterator[IO[bytes]]:
    """Hold the lock of a file, which ends with the last process that has it open.

    Raises ``IncompleteError`` with the sentence ``busy`` where another one holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise IncompleteError(busy) from None
        yield file


@contextmanager
def awaited(path: Path) -> Iterator[None]:
    """Hold the lock of a file, as soon as nobody else does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_locked(path: Path) -> bool:
    """Tell whether a process holds the lock of a file."""
    try:
        with locked(path, ""):
            return False
    except IncompleteError:
        return True
