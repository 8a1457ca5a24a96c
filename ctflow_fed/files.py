"""Files that are whole or absent, never half written."""

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = [
    "append_json",
    "digest_of",
    "is_sha256",
    "read_json",
    "sha256_of",
    "write_atomically",
    "write_bytes",
    "write_json",
    "write_private",
    "write_text",
]


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then move it there.

    The temporary file is ``.partial-NAME``: it keeps the suffixes, because some writers
    choose their format by them, and what a kill leaves of it is overwritten next time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON with sorted keys."""
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n"
    write_text(path, text)


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file that all may read."""
    write_atomically(path, lambda partial: partial.write_bytes(content))


def write_private(path: Path, content: bytes) -> None:
    """Write a file that its user alone may read, from its first byte on."""

    def write(partial: Path) -> None:
        partial.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(partial, flags, 0o600), "wb") as file:
            file.write(content)

    write_atomically(path, write)


def append_json(path: Path, value: Any) -> None:
    """Add ``value`` as a line of JSON, in place of a last line that a kill tore."""
    line = json.dumps(value, sort_keys=True, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.write(line.encode())


def read_json(path: Path) -> Any:
    """Read a JSON file; a file that is no JSON raises ``ValueError``."""
    return json.loads(path.read_text(encoding="utf-8"))


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_sha256(value: object) -> bool:
    """Tell whether a value is a SHA-256 as it is written here."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def digest_of(value: Any) -> str:
    """Return the SHA-256 of a JSON value in canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
