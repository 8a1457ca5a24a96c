"""What a site keeps on its own disk: no process of it lives longer than a message.

    bases/DIGEST.safetensors        weights that adapters belong to, the last two
    jobs/JOB/weights.safetensors    what the server sent last
    jobs/JOB/NNNN.safetensors       the memory after round NNNN, the last two
    privacy/JOB.json                what a private job has spent, kept for good

Of jobs the last three are kept. What a private job has spent must not be lost; nothing
else is ever needed: a site that has lost it says so and is sent everything, and goes on
with an empty memory. Weights count by their digest, so that damaged ones are as good as
none.
"""

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_tensors
from torch import Tensor

from ctflow_fed.errors import SettingsError, StoreError
from ctflow_fed.federation.payload import Arrays, arrays_digest
from ctflow_fed.files import write_atomically
from ctflow_fed.training import PrivacyLedger, PrivacySettings
from ctflow_fed.training.optimizer import OptimizerMemory

__all__ = ["SiteMemory", "SiteState"]

JOBS = 3
BASES = 2
MEMORIES = 2  # so that a round may be asked again and begins as it did before

RESIDUAL = "residual"
OPTIMIZER = "optimizer"


@dataclass(frozen=True)
class SiteMemory:
    """What a site carries from one round of a job to the next, as far as it needs any.

    ``residual`` is what rounding took from its last update (`encoding.compress`).
    """

    residual: Arrays = field(default_factory=dict)
    optimizer: OptimizerMemory | None = None

    @property
    def is_empty(self) -> bool:
        """Tell whether there is nothing to carry."""
        return not self.residual and self.optimizer is None


class SiteState:
    """The folder ``folder`` of a site for one job, known by a digest."""

    def __init__(self, folder: Path, job: str) -> None:
        self._bases, self._job = folder / "bases", folder / "jobs" / job
        self._privacy = folder / "privacy" / f"{job}.json"
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
        arrays = _read_weights(path)
        if arrays is None or arrays_digest(arrays) != digest:
            return None
        os.utime(path)
        return arrays

    def keep_base(self, arrays: Arrays) -> None:
        """Keep weights by their digest; the oldest give way."""
        _write_weights(self._bases / f"{arrays_digest(arrays)}.safetensors", arrays)
        for old in _oldest(self._bases.glob("*.safetensors"), BASES):
            old.unlink(missing_ok=True)

    def weights(self) -> Arrays | None:
        """Return what the server sent last, if it is here."""
        return _read_weights(self._job / "weights.safetensors")

    def keep_weights(self, arrays: Arrays) -> None:
        """Keep what the server has sent in place of what it sent before."""
        _write_weights(self._job / "weights.safetensors", arrays)

    def ledger(self, privacy: PrivacySettings) -> PrivacyLedger:
        """Return what the job has spent of the privacy of the site's patients."""
        return PrivacyLedger(self._privacy, privacy)

    def memory_before(self, round_number: int) -> SiteMemory:
        """Return the memory after the last round that was trained before this one.

        Raises ``StoreError`` for a file that is damaged.
        """
        earlier = [path for number, path in self._memories() if number < round_number]
        return _read_memory(earlier[-1]) if earlier else SiteMemory()

    def keep_memory(self, round_number: int, memory: SiteMemory) -> None:
        """Keep the memory after a round, if any; those of later rounds are void."""
        if memory.is_empty:
            return
        _write_memory(self._job / f"{round_number:04d}.safetensors", memory)
        for number, path in self._memories():
            if number > round_number:
                path.unlink(missing_ok=True)
        for _, path in self._memories()[:-MEMORIES]:
            path.unlink(missing_ok=True)

    def _memories(self) -> list[tuple[int, Path]]:
        """Return the memories that are here by their rounds, in order."""
        paths = self._job.glob("[0-9]*.safetensors")
        return sorted((int(path.stem), path) for path in paths if path.stem.isdigit())


def _oldest(paths: Iterable[Path], kept: int) -> list[Path]:
    """Return all paths but those that were changed last."""
    return sorted(paths, key=lambda path: path.stat().st_mtime_ns)[:-kept]


def _read_weights(path: Path) -> Arrays | None:
    try:
        return load_file(path)
    except (OSError, SafetensorError):
        return None


def _write_weights(path: Path, arrays: Arrays) -> None:
    write_atomically(path, lambda partial: save_file(dict(arrays), partial))


def _write_memory(path: Path, memory: SiteMemory) -> None:
    tensors: dict[str, Tensor] = {
        f"{RESIDUAL}.{name}": torch.from_numpy(value)
        for name, value in memory.residual.items()
    }
    metadata = {}
    if memory.optimizer is not None:
        metadata["steps"] = str(memory.optimizer.steps)
        for name, value in memory.optimizer.tensors.items():
            tensors[f"{OPTIMIZER}.{name}"] = value
    write_atomically(path, lambda partial: save_tensors(tensors, partial, metadata))


def _read_memory(path: Path) -> SiteMemory:
    try:
        with safe_open(path, framework="pt") as file:
            metadata, names = file.metadata() or {}, file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
        steps = int(metadata["steps"]) if "steps" in metadata else None
    except (OSError, SafetensorError, ValueError) as error:
        raise StoreError(
            "the site's memory of this job is damaged; remove the site's state folder "
            "to go on without it"
        ) from error
    residual = _those(tensors, RESIDUAL)
    return SiteMemory(
        {name: value.numpy() for name, value in residual.items()},
        None if steps is None else OptimizerMemory(_those(tensors, OPTIMIZER), steps),
    )


def _those(tensors: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Return the tensors of a kind by the rest of their names."""
    return {
        name.removeprefix(f"{kind}."): value
        for name, value in tensors.items()
        if name.startswith(f"{kind}.")
    }
