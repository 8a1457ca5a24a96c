"""Weights as named arrays, which may be more than memory holds.

Whoever goes through arrays by their names has one of them at a time, be they in memory,
in a file, or computed when they are asked for. Whoever goes through them by their runs
has a piece that fits the cache, for which memory need not be found anew.
"""

import json
import math
import mmap
import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ctflow_fed.files import write_atomically
from ctflow_fed.threads import ahead
from ctflow_fed.weights import WeightsDigest

__all__ = [
    "ArrayFile",
    "ArrayWriter",
    "Arrays",
    "FilePages",
    "LazyArrays",
    "Manifest",
    "PiecedArrays",
    "Run",
    "arrays_digest",
    "filed",
    "manifest_of",
    "paged",
    "put_arrays",
    "runs_of",
    "spans_of",
    "values_of",
    "write_arrays",
]

FloatArray = NDArray[np.float32]

Arrays = Mapping[str, FloatArray]
"""Weights by name: all of a network, or those that a job trains."""

Manifest = Mapping[str, tuple[int, ...]]
"""The name and the shape of every array of a round."""

Span = tuple[tuple[int, ...], int]
"""The shape of an array, and where it begins in a file or behind its header."""

PIECE = 2**16  # values; as float64 those of a few sites fit the cache
LONGEST_RUN = 4 * PIECE
LONGEST_HEADER = 2**24


class Run(NamedTuple):
    """Values of an array that follow one another; ``span`` counts in one axis."""

    name: str
    span: slice


class LazyArrays(Mapping[str, FloatArray]):
    """Arrays that ``make`` gives by name, each time that one is asked for."""

    def __init__(self, manifest: Manifest, make: Callable[[str], FloatArray]) -> None:
        self.manifest = dict(sorted(manifest.items()))
        self._make = make

    def __getitem__(self, name: str) -> FloatArray:
        if name not in self.manifest:
            raise KeyError(name)
        return self._make(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.manifest)

    def __len__(self) -> int:
        return len(self.manifest)

    def values_of(self, run: Run) -> FloatArray:
        """Return the values of a run, in one axis."""
        return self[run.name].reshape(-1)[run.span]

    def runs(self) -> Iterator[Run]:
        """Yield the runs by which all values are had at the least cost, in order."""
        for name, shape in self.manifest.items():
            yield Run(name, slice(0, math.prod(shape)))

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the arrays, as `arrays_digest` gives it."""
        digest = WeightsDigest()
        for run in self.runs():
            if not run.span.start:
                digest.begin(run.name, self.manifest[run.name])
            digest.update(self.values_of(run))
        return digest.hexdigest()


class PiecedArrays(LazyArrays):
    """Arrays of which ``make`` gives any run, each time that one is asked for."""

    def __init__(self, manifest: Manifest, make: Callable[[Run], FloatArray]) -> None:
        def whole(name: str) -> FloatArray:
            shape = manifest[name]
            return make(Run(name, slice(0, math.prod(shape)))).reshape(shape)

        super().__init__(manifest, whole)
        self._give = make

    def values_of(self, run: Run) -> FloatArray:
        """Return the values of a run, in one axis."""
        return self._give(run)

    def runs(self) -> Iterator[Run]:
        """Yield runs that fit the cache."""
        return runs_of(self.manifest)


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


def spans_of(values: int) -> Iterator[slice]:
    """Yield the spans in which so many values are computed with, one after another."""
    for place in range(0, values, PIECE):
        yield slice(place, place + PIECE)


def runs_of(manifest: Manifest) -> Iterator[Run]:
    """Yield runs that fit the cache, of all arrays in the order of their names."""
    for name in sorted(manifest):
        size = math.prod(manifest[name])
        for place in range(0, max(size, 1), LONGEST_RUN):
            yield Run(name, slice(place, min(place + LONGEST_RUN, size)))


def values_of(arrays: Arrays, run: Run) -> FloatArray:
    """Return the values of a run in one axis; of arrays in memory it is a view."""
    if isinstance(arrays, LazyArrays):
        return arrays.values_of(run)
    return arrays[run.name].reshape(-1)[run.span]


def write_arrays(path: Path, arrays: Arrays) -> ArrayFile:
    """Write arrays run by run, and return them as they lie in the file."""
    lazy = _lazy(arrays)
    runs = list(lazy.runs())
    with ArrayWriter(path, lazy.manifest) as writer:
        for run, values in zip(runs, ahead(lazy.values_of, runs), strict=True):
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


def manifest_of(arrays: Arrays) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of arrays, by name."""
    if isinstance(arrays, LazyArrays):
        return arrays.manifest
    return {name: tuple(arrays[name].shape) for name in sorted(arrays)}


def arrays_digest(arrays: Arrays) -> str:
    """Return the SHA-256 of weights, the same as that of a network that holds them."""
    return _lazy(arrays).digest


def _lazy(arrays: Arrays) -> LazyArrays:
    if isinstance(arrays, LazyArrays):
        return arrays
    return LazyArrays(manifest_of(arrays), arrays.__getitem__)


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
