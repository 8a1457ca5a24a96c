"""The values of elements, read from their bytes: fast, and without a word decoded."""

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.tag import BaseTag

__all__ = ["integer", "numbers", "raw", "texts"]


def raw(dataset: Dataset, keyword: str) -> bytes:
    """Return the bytes of an element without its padding, none where it is absent.

    pydicom converts a value when it is first asked for, which takes longer than all
    the rest of reading a slice.
    """
    element = dataset.get_item(_tag(keyword))
    value = None if element is None else element.value
    return value.strip(b" \0") if isinstance(value, bytes) else b""


def texts(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """Return the values of a code string; what is not ASCII is replaced."""
    value = raw(dataset, keyword)
    parts = value.split(b"\\") if value else ()
    return tuple(part.decode("ascii", "replace").strip() for part in parts)


def numbers(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    """Return the values of a decimal or integer string, or raise ``ValueError``."""
    value = raw(dataset, keyword)
    return tuple(float(part) for part in value.split(b"\\")) if value else ()


def integer(dataset: Dataset, keyword: str, *, big: bool, signed: bool = False) -> int:
    """Return the two-byte integer of an element, or raise ``ValueError``."""
    element = dataset.get_item(_tag(keyword))
    value = None if element is None else element.value
    if isinstance(value, int):
        return value  # pydicom asked for it when it read a sequence
    if not isinstance(value, bytes) or len(value) != 2:
        raise ValueError("expected one integer of two bytes")
    return int.from_bytes(value, "big" if big else "little", signed=signed)


_TAGS: dict[str, BaseTag] = {}


def _tag(keyword: str) -> BaseTag:
    if keyword not in _TAGS:
        _TAGS[keyword] = BaseTag(tag_for_keyword(keyword) or 0)
    return _TAGS[keyword]
