"""What a site keeps on its own disk: no process of it lives longer than a message.

    bases/DIGEST.safetensors        weights that adapters belong to, the last two
    inbox/, outbox/                 shards of the message that is being answered, and
                                    what rounding took from it until that is kept
    jobs/JOB/weights.safetensors    what the server sent last
    bases/DIGEST.json, jobs/JOB/weights.json
                                    the digest of such weights, and of which file it is
    jobs/JOB/residual-NNNN...       what rounding took from the update of round NNNN
    jobs/JOB/optimizer-NNNN...      the optimizer's state after round NNNN
    privacy/JOB.json                what a private job has spent, kept for good

Of memories the last two are kept, of jobs the last three. What a private job has spent
must not be lost; nothing else is ever needed: a site that has lost it says so and is
sent everything, and goes on with an empty memory. Weights count by their digest, so
that damaged ones are as good as none; it is computed anew where their file was touched.
"""

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ctflow_fed.errors import SettingsError, StoreError
from ctflow_fed.federation.array_files import ArrayFile, put_arrays, write_arrays
from ctflow_fed.federation.arrays import Arrays
from ctflow_fed.files import is_sha256, read_json, write_atomically, write_json
from ctflow_fed.training import PrivacyLedger, PrivacySettings, spent_in
from ctflow_fed.training.optimizer import OptimizerMemory

__all__ = ["SiteMemory", "SiteState", "spent_beside"]

JOBS = 3
BASES = 2
MEMORIES = 2  # so that a round may be asked again and begins as it did before

PRIVACY = "privacy"
NOTE = ".json"
RESIDUAL = "residual"
OPTIMIZER = "optimizer"
DAMAGED = (
    "the site's memory of this job is damaged; remove the site's state folder to go on "
    "without it"
)


@dataclass(frozen=True)
class SiteMemory:
    """What a site carries from one round of a job to the next, as far as it needs any.

    ``residual`` is what rounding took from its last update (`local_fit`).
    """

    residual: Arrays = field(default_factory=dict)
    optimizer: OptimizerMemory | None = None

    @property
    def is_empty(self) -> bool:
        """Tell whether there is nothing to carry."""
        return not self.residual and self.optimizer is None


class SiteState:
    """The folder ``folder`` of a site for one job, known by a digest.

    Who must not believe what a program has noted here of weights says ``doubting``.
    """

    def __init__(self, folder: Path, job: str, *, doubting: bool = False) -> None:
        self._weights_in = _read if doubting else _read_noted
        self.inbox, self.outbox = folder / "inbox", folder / "outbox"
        self._bases, self._job = folder / "bases", folder / "jobs" / job
        self._privacy = folder / PRIVACY / f"{job}.json"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._job.mkdir(parents=True, exist_ok=True)
            os.utime(self._job)
        except OSError:
            raise SettingsError(
                "expected a folder for the site's state that can be written to; "
                "name another one as `state` in the node config"
            ) from None
        for old in _oldest((folder / "jobs").iterdir(), JOBS):
            shutil.rmtree(old, ignore_errors=True)

    def base(self, digest: str) -> Arrays | None:
        """Return the weights of a digest if they are here."""
        path = self._bases / f"{digest}.safetensors"
        arrays = self._weights_in(path)
        if arrays is None or arrays.digest != digest:
            path.with_suffix(NOTE).unlink(missing_ok=True)
            return None
        with suppress(OSError):  # a full disk; the digest is computed again then
            os.utime(path)
            _note(path, digest)
        return arrays

    def keep_base(self, arrays: Arrays, digest: str) -> Arrays | None:
        """Keep weights as `keep_weights` does, for every job; the oldest give way."""
        kept = _keep(self._bases / f"{digest}.safetensors", arrays, digest)
        for old in _oldest(self._bases.glob("*.safetensors"), BASES):
            old.unlink(missing_ok=True)
            old.with_suffix(NOTE).unlink(missing_ok=True)
        return kept

    def weights(self) -> Arrays | None:
        """Return what the server sent last, if it is here."""
        return self._weights_in(self._job / "weights.safetensors")

    def keep_weights(self, arrays: Arrays, digest: str) -> Arrays | None:
        """Keep what the server has sent in place of what it sent before, and return it.

        None where the weights have another digest: then all stays as it is.
        """
        return _keep(self._job / "weights.safetensors", arrays, digest)

    def ledger(self, privacy: PrivacySettings) -> PrivacyLedger:
        """Return what the job has spent of the privacy of the site's patients."""
        return PrivacyLedger(self._privacy, privacy)

    def memory_before(self, round_number: int) -> SiteMemory:
        """Return the memory after the last round that was trained before this one.

        Raises ``StoreError`` for a file that is damaged.
        """

        def last(kind: str) -> list[Path]:
            paths = self._memories(kind)
            return [path for number, path in paths if number < round_number][-1:]

        residual = [_read(path) for path in last(RESIDUAL)]
        if None in residual:
            raise StoreError(DAMAGED)
        optimizer = [_read_optimizer(path) for path in last(OPTIMIZER)]
        return SiteMemory(
            residual[0] or {} if residual else {}, optimizer[0] if optimizer else None
        )

    def keep_memory(self, round_number: int, memory: SiteMemory) -> None:
        """Keep the memory after a round, if any; those of later rounds are void."""
        if memory.residual:
            put_arrays(self._memory(RESIDUAL, round_number), memory.residual)
        if memory.optimizer is not None:
            _write_optimizer(self._memory(OPTIMIZER, round_number), memory.optimizer)
        for kind in (RESIDUAL, OPTIMIZER) if not memory.is_empty else ():
            for number, path in self._memories(kind):
                if number > round_number:
                    path.unlink(missing_ok=True)
            for _, path in self._memories(kind)[:-MEMORIES]:
                path.unlink(missing_ok=True)

    def _memory(self, kind: str, round_number: int) -> Path:
        return self._job / f"{kind}-{round_number:04d}.safetensors"

    def _memories(self, kind: str) -> list[tuple[int, Path]]:
        """Return the memories of a kind that are here by their rounds, in order."""
        numbers = {
            path.stem.removeprefix(f"{kind}-"): path
            for path in self._job.glob(f"{kind}-*.safetensors")
        }
        return sorted((int(n), path) for n, path in numbers.items() if n.isdigit())


def spent_beside(folder: Path, job: str, delta: float) -> float:
    """Return the sum of the epsilons that a site's other jobs have spent, at ``delta``.

    Each sum of a job is tight; those of several are added, which is an upper bound.
    Raises ``StoreError`` where a ledger is damaged.
    """
    ledgers = sorted((folder / PRIVACY).glob("*.json"))
    return sum(spent_in(path, delta) for path in ledgers if path.stem != job)


def _oldest(paths: Iterable[Path], kept: int) -> list[Path]:
    """Return all paths but those that were changed last."""
    return sorted(paths, key=lambda path: path.stat().st_mtime_ns)[:-kept]


def _read(path: Path) -> ArrayFile | None:
    try:
        return ArrayFile(path)
    except (OSError, ValueError):
        return None


def _keep(path: Path, arrays: Arrays, digest: str) -> ArrayFile | None:
    """Write arrays in place of a file where they have this digest."""
    new = path.with_name(f".new-{path.name}")
    kept = write_arrays(new, arrays)
    if kept.digest != digest:
        new.unlink()
        return None
    new.replace(path)
    _note(path, digest)
    return kept


def _note(path: Path, digest: str) -> None:
    """Note the digest of a file of weights, as long as nobody touches it."""
    write_json(path.with_suffix(NOTE), {"digest": digest, "file": _identity(path)})


def _read_noted(path: Path) -> ArrayFile | None:
    """Read weights, whose digest is what was noted unless the file was touched."""
    arrays = _read(path)
    if arrays is not None:
        with suppress(OSError, ValueError, TypeError, KeyError):
            noted = read_json(path.with_suffix(NOTE))
            if noted["file"] == _identity(path) and is_sha256(noted["digest"]):
                arrays.digest = noted["digest"]
    return arrays


def _identity(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns]


def _write_optimizer(path: Path, memory: OptimizerMemory) -> None:
    metadata = {"steps": str(memory.steps)}
    tensors = dict(memory.tensors)
    write_atomically(path, lambda partial: save_file(tensors, partial, metadata))


def _read_optimizer(path: Path) -> OptimizerMemory:
    try:
        with safe_open(path, framework="pt") as file:
            steps = int((file.metadata() or {})["steps"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no dict
        return OptimizerMemory(tensors, steps)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise StoreError(DAMAGED) from error
