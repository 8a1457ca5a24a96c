"""The site's record of all that came, left and was refused: lines that hang together.

    audit.jsonl     one JSON object a line, each with the SHA-256 of the line before
    audit.head      number, digest and end in bytes of the last line

A changed, removed, inserted or moved line breaks the chain, and a shortened log does
not end where the head says. Who may write both files can write both anew: the digest
of the head, kept at another place, shows that too. No value and no data are in it.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ctflow_fed.errors import PackageError
from ctflow_fed.files import read_json, write_json

__all__ = ["AuditLog", "Entry", "Head"]

LOG, HEAD = "audit.jsonl", "audit.head"
NOTHING = "0" * 64


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What happened.

    ``event`` is ``start``, ``approve``, ``in`` or ``out``; ``decision`` is ``allowed``
    or ``refused``; ``bundle`` and ``digest`` are SHA-256, the latter of the content;
    ``passes`` is how often an order goes over the slices of the store.
    """

    event: str
    decision: str = "allowed"
    reason: str = ""
    kind: str = ""
    round: int = 0
    bundle: str = ""
    digest: str = ""
    bytes: int = 0
    passes: float = 0.0


@dataclass(frozen=True)
class Head:
    """The last line of a log: its number, its SHA-256, and where it ends in bytes."""

    sequence: int = 0
    digest: str = NOTHING
    end: int = 0


class AuditLog:
    """The log of a kit's folder; several processes may append to it."""

    def __init__(self, folder: Path) -> None:
        self._log, self._head = folder / LOG, folder / HEAD

    def append(self, entry: Entry) -> None:
        """Add a line, on the disk when this returns.

        What a power cut left of a half written line is dropped. Raises
        ``PackageError`` where the log does not end as its head says.
        """
        with self._locked() as file:
            head = self._mended(file.fileno())
            line = _line(head, asdict(entry))
            os.pwrite(file.fileno(), line, head.end)
            os.fsync(file.fileno())
            self._write_head(_after(head, line))

    def entries(self) -> list[tuple[str, Entry]]:
        """Return the UTC time and the content of every line, which are not verified."""
        if not self._log.exists():
            return []
        values = map(json.loads, self._log.read_bytes().splitlines())
        keys = set(asdict(Entry(event="")))
        return [(v["time"], Entry(**{k: v[k] for k in keys})) for v in values]

    def verify(self) -> Head:
        """Return the head of a log that is whole; raise ``PackageError`` otherwise."""
        head, stated = Head(), self._read_head()
        content = self._log.read_bytes() if self._log.exists() else b""
        for line in content.splitlines(keepends=True):
            head = _next(head, line)
        if head != stated:
            raise PackageError(
                f"the audit log ends with line {head.sequence}, but {HEAD} says "
                f"{stated.sequence} or another digest: lines were removed or added"
            )
        return head

    @contextmanager
    def _locked(self) -> Iterator[Any]:
        descriptor = os.open(self._log, os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def _mended(self, descriptor: int) -> Head:
        """Return the head, after the line that a killed process could not finish."""
        head, size = self._read_head(), os.fstat(descriptor).st_size
        rest = os.pread(descriptor, max(0, size - head.end), head.end)
        if b"\n" in rest:
            head = _next(head, rest[: rest.index(b"\n") + 1])
        if size < head.end or b"\n" in rest[:-1]:
            raise PackageError(
                f"the audit log does not end where {HEAD} says: lines were removed or "
                "added; find out why, then move both files away"
            )
        os.ftruncate(descriptor, head.end)
        return head

    def _read_head(self) -> Head:
        if not self._head.exists():
            return Head()
        try:
            return Head(**read_json(self._head))
        except (TypeError, ValueError):
            raise PackageError(f"{HEAD} is not what was written; restore it") from None

    def _write_head(self, head: Head) -> None:
        write_json(self._head, asdict(head))


def _line(head: Head, values: Mapping[str, Any]) -> bytes:
    known = {
        "sequence": head.sequence + 1,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "previous": head.digest,
    }
    return json.dumps({**known, **values}, allow_nan=False).encode() + b"\n"


def _after(head: Head, line: bytes) -> Head:
    digest = hashlib.sha256(line).hexdigest()
    return Head(head.sequence + 1, digest, head.end + len(line))


def _next(head: Head, line: bytes) -> Head:
    """Return the head after a line, which must follow the one before."""
    number = head.sequence + 1
    try:
        value = json.loads(line)
        follows = (value["sequence"], value["previous"]) == (number, head.digest)
    except (ValueError, KeyError, TypeError, RecursionError):
        follows = False
    if not (follows and line.endswith(b"\n")):
        raise PackageError(
            f"line {number} of the audit log does not follow the one before: it or "
            "its neighbour was changed, removed or moved"
        )
    return _after(head, line)
