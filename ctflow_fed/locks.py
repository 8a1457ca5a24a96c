"""Locks by which a folder has one writer at a time, however the writer ends."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ctflow_fed.errors import IncompleteError

__all__ = ["awaited", "is_locked", "locked"]

POLL_SECONDS = 0.2


@contextmanager
def locked(path: Path, busy: str, patience: float = 0.0) -> Iterator[IO[bytes]]:
    """Hold the lock of a file, which ends with the last process that has it open.

    Raises ``IncompleteError`` with the sentence ``busy`` where another one still holds
    it after ``patience`` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + patience
    with path.open("ab") as file:
        while not _is_ours(file):
            if time.monotonic() >= end:
                raise IncompleteError(busy)
            time.sleep(POLL_SECONDS)
        yield file


def _is_ours(file: IO[bytes]) -> bool:
    """Try to lock an open file, and tell whether that went well."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


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
