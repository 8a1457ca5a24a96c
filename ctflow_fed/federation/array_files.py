"""Arrays in files: safetensors of float32, read and written run by run."""

import json
import math
import mmap
import os
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import numpy as np

from ctflow_fed.federation.arrays import (
    Arrays,
    FloatArray,
    LazyArrays,
    Manifest,
    PiecedArrays,
    Run,
    as_lazy,
)
from ctflow_fed.files import write_atomically
from ctflow_fed.threads import each_ahead
from ctflow_fed.weights import WeightsDigest

__all__ = [
    "ArrayFile",
    "ArrayWriter",
    "FilePages",
    "filed",
    "paged",
    "put_arrays",
    "write_arrays",
]

Span = tuple[tuple[int, ...], int]
"""The shape of an array, and where it begins in a file or behind its header."""

LONGEST_HEADER = 2**24


class ArrayFile(PiecedArrays):
    """The float32 arrays of a safetensors file, which stays open.

    What was opened is read, whatever takes the place of the file. Raises ``OSError`` or
    ``ValueError`` where there is no such file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            spans = _spans(file.read(8), file.read)
            begin, descriptor = file.tell(), os.dup(file.fileno())
        weakref.finalize(self, os.close, descriptor)
        if begin + sum(map(_bytes, spans.values())) != os.fstat(descriptor).st_size:
            raise ValueError("the file is shorter or longer than its header says")
        placed = {n: (shape, begin + place) for n, (shape, place) in spans.items()}
        self._descriptor, self._spans = descriptor, placed

        def read(run: Run) -> FloatArray:
            shape, place = placed[run.name]
            first, end, _ = run.span.indices(math.prod(shape))
            return _read(descriptor, place + 4 * first, end - first)

        super().__init__({name: span[0] for name, span in spans.items()}, read)

    def pages(self) -> "FilePages":
        """Return the same arrays as pages of the file."""
        return FilePages(self._descriptor, self._spans)


class FilePages(LazyArrays):
    """Arrays that are the pages of an open file, read when they are first looked at.

    All who read the file share them. What is written to an array stays in it, and
    changes neither the file nor what others have. ``spans`` are shapes and places.
    """

    def __init__(self, descriptor: int, spans: Mapping[str, Span]) -> None:
        pages = mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY)

        def view(name: str) -> FloatArray:
            shape, place = spans[name]
            values = np.frombuffer(pages, "<f4", math.prod(shape), place)
            return values.reshape(shape)

        super().__init__({name: span[0] for name, span in spans.items()}, view)


class ArrayWriter:
    """Writes a safetensors file of float32 arrays that come in the order of names.

    An array comes whole, or in runs.

    Used with ``with``: the file is in place when it ends without an error, and then
    ``file`` reads it.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self._path, self._partial = path, path.with_name(f".partial-{path.name}")
        self._shapes = dict(sorted(manifest.items()))
        self._left = {name: math.prod(each) for name, each in self._shapes.items()}
        self._digest = WeightsDigest()

    def __enter__(self) -> "ArrayWriter":
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._open = self._partial.open("wb")
        self._open.write(_header(self._shapes))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._open.close()
            if kind is None:
                if self._left:
                    raise ValueError("not all arrays of the manifest were written")
                self._partial.replace(self._path)
        finally:
            self._partial.unlink(missing_ok=True)

    def write(self, name: str, values: FloatArray) -> None:
        """Append values of an array, those that come next by the manifest."""
        if next(iter(self._left), None) != name or values.size > self._left[name]:
            raise ValueError("expected the next values of the manifest")
        if self._left[name] == math.prod(self._shapes[name]):
            self._digest.begin(name, self._shapes[name])
        content = np.ascontiguousarray(values, "<f4").reshape(-1)
        self._digest.update(content)
        self._open.write(content.data)
        self._left[name] -= content.size
        if not self._left[name]:
            del self._left[name]

    @property
    def digest(self) -> str:
        """The SHA-256 of the arrays that were written so far."""
        return self._digest.hexdigest()

    @property
    def file(self) -> ArrayFile:
        """The arrays as they lie in the file, whose digest need not be computed."""
        file = ArrayFile(self._path)
        file.digest = self.digest
        return file


def write_arrays(path: Path, arrays: Arrays) -> ArrayFile:
    """Write arrays run by run, and return them as they lie in the file."""
    lazy = as_lazy(arrays)
    with ArrayWriter(path, lazy.manifest) as writer:
        for run, values in each_ahead(lazy.values_of, lazy.runs()):
            writer.write(run.name, values)
    return writer.file


def filed(path: Path, arrays: Arrays) -> ArrayFile:
    """Return arrays as they lie in a file: in ``path``, unless they lie in one."""
    return arrays if isinstance(arrays, ArrayFile) else write_arrays(path, arrays)


def paged(arrays: Arrays) -> Arrays:
    """Return arrays as pages of the file that they lie in, if they lie in one."""
    return arrays.pages() if isinstance(arrays, ArrayFile) else arrays


def put_arrays(path: Path, arrays: Arrays) -> None:
    """Put arrays into a file; those that lie in a file of the same disk are linked.

    A file of arrays is never changed in place, so that both stay what they are.
    """
    if isinstance(arrays, ArrayFile):
        with suppress(OSError):
            write_atomically(path, lambda partial: os.link(arrays.path, partial))
            return
    write_arrays(path, arrays)


def _read(descriptor: int, place: int, count: int) -> FloatArray:
    array = np.empty(count, "<f4")
    left = array.view(np.uint8).data
    while left:
        count = os.preadv(descriptor, [left], place)
        if not count:
            raise ValueError("the file has become shorter")
        left, place = left[count:], place + count
    return array


def _bytes(span: Span) -> int:
    return 4 * math.prod(span[0])


def _header(manifest: Manifest) -> bytes:
    entries, end = {}, 0
    for name, shape in manifest.items():
        begin, end = end, end + 4 * math.prod(shape)
        offsets = [begin, end]
        entries[name] = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _spans(length: bytes, read: Callable[[int], bytes]) -> dict[str, Span]:
    """Read the header of a safetensors file; another one raises ``ValueError``."""
    size = int.from_bytes(length, "little")
    if len(length) != 8 or size > LONGEST_HEADER:
        raise ValueError("the file has no header of safetensors")
    try:
        entries = json.loads(read(size))
        entries.pop("__metadata__", None)
        spans = {name: _span(each) for name, each in entries.items()}
    except (AttributeError, KeyError, TypeError, RecursionError):
        raise ValueError("the file has no header of safetensors") from None
    end = 0
    for span in sorted(spans.values(), key=lambda each: (each[1], _bytes(each))):
        if span[1] != end:
            raise ValueError("the arrays of the file overlap or leave gaps")
        end += _bytes(span)
    return spans


def _span(entry: Mapping[str, object]) -> Span:
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not (
        entry["dtype"] == "F32"
        and isinstance(shape, list)
        and isinstance(offsets, list)
        and all(type(n) is int and n >= 0 for n in (*shape, *offsets))
        and len(offsets) == 2
        and offsets[1] - offsets[0] == 4 * math.prod(shape)
    ):
        raise ValueError("expected arrays of float32 in the file")
    return tuple(shape), offsets[0]
