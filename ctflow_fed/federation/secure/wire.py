"""What is said in a secure round, as text: JSON, with bytes in hexadecimal digits."""

import json
from collections.abc import Mapping

from ctflow_fed.errors import UpdateError

__all__ = ["names_in", "row_in", "rows_in", "to_text"]


def to_text(value: object) -> str:
    """Return a mapping or a list, of texts and bytes, as it travels."""
    return json.dumps(value, default=bytes.hex)


def names_in(text: object) -> list[str]:
    """Read a list of names; anything else raises ``UpdateError``."""
    value = _read(text)
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise _refused()
    return value


def row_in(text: object) -> dict[str, bytes]:
    """Read bytes by name; anything else raises ``UpdateError``."""
    return _row(_read(text))


def rows_in(text: object) -> dict[str, dict[str, bytes]]:
    """Read rows of bytes by name; anything else raises ``UpdateError``."""
    value = _read(text)
    if not isinstance(value, Mapping):
        raise _refused()
    return {str(name): _row(row) for name, row in value.items()}


def _read(text: object) -> object:
    try:
        return json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        raise _refused() from None


def _row(value: object) -> dict[str, bytes]:
    try:
        if not isinstance(value, Mapping):
            raise TypeError
        return {str(name): bytes.fromhex(each) for name, each in value.items()}
    except (TypeError, ValueError):
        raise _refused() from None


def _refused() -> UpdateError:
    return UpdateError(
        "expected a step of a secure round, got something else; "
        "install the same version everywhere"
    )
