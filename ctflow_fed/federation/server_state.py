"""What the server carries from round to round, in files, a few runs of it in memory.

The model package of a round holds the weights that are evaluated and kept. All else of
the server's state lies beside it, a safetensors file of each kind: the moments of a
strategy, what rounding has left, and the weights themselves where the model is their
moving average or is merged from them. With none of these there is no file.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ctflow_fed.errors import PackageError
from ctflow_fed.federation.array_files import ArrayFile, ArrayWriter, put_arrays
from ctflow_fed.federation.arrays import Arrays, Manifest, arrays_digest
from ctflow_fed.federation.strategies import ServerState
from ctflow_fed.files import digest_of

__all__ = [
    "StateWriter",
    "beside",
    "beside_digest",
    "read_beside",
    "save_beside",
    "writing_state",
]

WEIGHTS, AVERAGE, RESIDUAL = "weights", "average", "residual"


class StateWriter:
    """Writes a state into a folder, run after run; `writing_state` gives one.

    Each file is written by a thread while the next run is computed. ``state`` is the
    whole of it, as it lies in the files, when that has ended.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        threads: ThreadPoolExecutor,
        files: ExitStack,
    ) -> None:
        self._folder, self._manifest = folder, manifest
        self._threads, self._files = threads, files
        self._writers: dict[str, ArrayWriter] = {}
        self._writing: list[Future[None]] = []

    def write(self, piece: ServerState) -> None:
        """Append the state of the next values; they must stay until the next call."""
        self.finish()
        kinds = _kinds(piece).items()
        self._writing = [
            self._threads.submit(self._append, self._writer(kind), arrays)
            for kind, arrays in kinds
        ]

    def _append(self, writer: ArrayWriter, arrays: Arrays) -> None:
        for name in sorted(arrays):
            writer.write(name, arrays[name])

    def finish(self) -> None:
        """Wait for what is being written; the first error of it is raised."""
        wait(self._writing)
        for done in self._writing:
            done.result()

    @property
    def state(self) -> ServerState:
        """The state that was written."""
        return _state({kind: each.file for kind, each in self._writers.items()})

    def _writer(self, kind: str) -> ArrayWriter:
        if kind not in self._writers:
            writer = ArrayWriter(_file(self._folder, kind), self._manifest)
            self._writers[kind] = self._files.enter_context(writer)
        return self._writers[kind]


@contextmanager
def writing_state(folder: Path, manifest: Manifest) -> Iterator[StateWriter]:
    """Give a writer, whose files are in place when this ends without an error."""
    with ThreadPoolExecutor() as threads, ExitStack() as files:
        writer = StateWriter(folder, manifest, threads, files)
        try:
            yield writer
        finally:
            writer.finish()


def beside(state: ServerState, *, merged: bool) -> Mapping[str, Arrays]:
    """Return by kind what a model package does not hold.

    ``merged`` if it holds no array of the state.
    """
    kinds = _kinds(state)
    held = () if merged else (AVERAGE,) if state.average else (WEIGHTS,)
    return {kind: arrays for kind, arrays in kinds.items() if kind not in held}


def beside_digest(kinds: Mapping[str, Arrays]) -> str:
    """Return the SHA-256 of what `beside` gave, empty if nothing."""
    digests = {kind: arrays_digest(arrays) for kind, arrays in kinds.items()}
    return digest_of(digests) if digests else ""


def save_beside(folder: Path, kinds: Mapping[str, Arrays]) -> None:
    """Put what `beside` gave, if there is anything, into a new folder."""
    for kind, arrays in kinds.items():
        folder.mkdir(exist_ok=True)
        put_arrays(_file(folder, kind), arrays)


def read_beside(folder: Path, model: Arrays, digest: str) -> ServerState:
    """Return the state whose model is ``model``; exact to the last bit.

    ``model`` is empty where the package holds no array of it. Raises ``PackageError``
    when the files are not those of this ``digest``.
    """
    if not digest:
        return ServerState(model)
    try:
        kinds: dict[str, Arrays] = {
            path.stem: ArrayFile(path) for path in sorted(folder.glob("*.safetensors"))
        }
    except (OSError, ValueError):
        kinds = {}
    if beside_digest(kinds) != digest:
        raise PackageError(
            f"the folder {folder.name} of the last round is not the one that "
            "rounds.jsonl names; restore the job's folder or begin in a new one"
        )
    if model:
        kinds[AVERAGE if WEIGHTS in kinds else WEIGHTS] = model
    return _state(kinds)


def _file(folder: Path, kind: str) -> Path:
    return folder / f"{kind}.safetensors"


def _kinds(state: ServerState) -> dict[str, Arrays]:
    fixed = {WEIGHTS: state.weights, AVERAGE: state.average, RESIDUAL: state.residual}
    return {kind: a for kind, a in {**state.moments, **fixed}.items() if a}


def _state(kinds: Mapping[str, Arrays]) -> ServerState:
    moments = dict(kinds)
    weights = moments.pop(WEIGHTS)
    average, residual = moments.pop(AVERAGE, {}), moments.pop(RESIDUAL, {})
    return ServerState(weights, moments, average, residual)
