"""The only door to pydicom's parser: hostile bytes in, a dataset or a refusal out."""

import mmap
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from pydicom import Dataset, dcmread
from pydicom.config import disable_value_validation
from pydicom.uid import DeflatedExplicitVRLittleEndian

from ctflow_fed.errors import VolumeError

__all__ = ["looks_like_dicom", "parse", "parse_inflated", "refusing_doubts"]

MAX_INFLATED_BYTES = 2**26
"""One slice of 4096 x 4096 16-bit pixels is half of this."""

_PREFIX = 128 + 4
"""Bytes of preamble and ``DICM`` before the first element."""

_TEXT_ENCODINGS = r".*(Unknown encoding|Specific Character Set|code extension)"
"""pydicom's doubts about the encoding of texts; no text is decoded here."""


def looks_like_dicom(path: Path) -> bool:
    """Tell whether the file carries DICOM's mark after its preamble."""
    try:
        with path.open("rb") as file:
            return file.read(_PREFIX)[128:] == b"DICM"
    except OSError:
        raise VolumeError(
            "expected readable files, got one that cannot be opened; check its "
            "permissions"
        ) from None


@contextmanager
def refusing_doubts(sentence: str) -> Iterator[None]:
    """Raise ``VolumeError(sentence)`` for whatever pydicom or a decoder cannot do.

    That includes its warnings: they tell of a structure that it had to guess. What it
    raises is not chained, since its text may quote the header. The form of single
    values is not validated, because files of real scanners often break it.
    """
    try:
        with warnings.catch_warnings(), disable_value_validation():
            warnings.simplefilter("error", UserWarning)
            warnings.filterwarnings("ignore", _TEXT_ENCODINGS, UserWarning)
            yield
    except VolumeError:
        raise  # already a sentence
    except Exception:  # noqa: BLE001  parsers of hostile bytes raise anything
        raise VolumeError(sentence) from None


def parse(path: Path, keywords: Sequence[str] | None) -> tuple[Dataset, int]:
    """Read the elements named by ``keywords``, or all; tell where the pixels begin.

    The bytes are mapped, so that pixels are not read and no length that an element
    claims is believed. Call it within `refusing_doubts`.
    """
    with path.open("rb") as file, _mapped(file.fileno()) as content:
        _refuse_inflation(content)
        # A mapping has no name: pydicom would write that of a file into its log.
        dataset = dcmread(
            cast("BinaryIO", content),
            stop_before_pixels=True,
            specific_tags=None if keywords is None else [*keywords],
        )
        return dataset, content.tell()


def parse_inflated(path: Path) -> bytes:
    """Return the pixel data of a deflated file, which have no place in the file."""
    with path.open("rb") as file, _mapped(file.fileno()) as content:
        _refuse_inflation(content)
        return bytes(
            dcmread(cast("BinaryIO", content), specific_tags=["PixelData"]).PixelData
        )


def _mapped(descriptor: int) -> mmap.mmap:
    return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)


def _refuse_inflation(content: mmap.mmap) -> None:
    """Raise ``VolumeError`` when a deflated file would inflate beyond all bounds."""
    length = int.from_bytes(content[_PREFIX + 8 : _PREFIX + 12], "little")
    start = _PREFIX + 12 + length  # after the file meta group, which is not deflated
    if DeflatedExplicitVRLittleEndian.encode() not in content[_PREFIX:start]:
        return
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflater.decompress(content[start:], MAX_INFLATED_BYTES)
    if inflater.unconsumed_tail:
        raise VolumeError(
            f"expected a slice of at most {MAX_INFLATED_BYTES >> 20} MiB, got a "
            "deflated file that holds more; export the series uncompressed"
        )
