"""The folder of a federated job: what was done, and from where to go on.

    run.json             the settings that the result depends on, and the job's name
    rounds.jsonl         one line a finished round
    rounds/NNNN/         the model package after round NNNN and the server's state; the
                         last and the best are kept
    next/, arrived/      weights of the round that is played
    shards/              what is too large for a message, if all sites are on this host
    model/               the model package that is the result
    adapter/             the adapter that was merged into it, where one was trained
    released.json        the sites that were let in again, and after which round
    lock                 held by the one process that plays the job
    progress.json        what that process does, or why it ended
    events/              the rounds as TensorBoard has them, with tensorboardX

A round is finished when its line is in rounds.jsonl; its package is in place by then.
"""

import json
import math
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError

from ctflow_fed.errors import (
    IncompleteError,
    MismatchError,
    PackageError,
    SettingsError,
)
from ctflow_fed.federation.round_record import RoundRecord, read_records
from ctflow_fed.files import is_sha256, read_json, write_json, write_text
from ctflow_fed.locks import is_locked, locked

__all__ = [
    "ADAPTER",
    "SPENT",
    "STATE",
    "Ledger",
    "is_playing",
    "playing",
    "read_ledger",
    "release",
    "written",
]

ADAPTER = "adapter"
"""The adapter in the folder of a round, where one is trained."""

STATE = "server"
"""What the server carries on beside a model package, where there is anything."""

SPENT = "its privacy budget is spent: it takes part no more"
"""Why a site is asked no more in a private job."""

JOB = "job"  # the key of its name
LOCK, RUN, ROUNDS = "lock", "run.json", "rounds.jsonl"
RELEASED = "released.json"
STRIKES = 3  # wrong answers before a site is quarantined


class Ledger:
    """The job in one folder; made with `Ledger.open`. It has one writer at a time.

    ``job`` is its name, drawn when it begins: two jobs of equal settings have two.
    ``settings`` are those that its result depends on.
    """

    def __init__(
        self,
        folder: Path,
        job: str,
        settings: Mapping[str, Any],
        records: tuple[RoundRecord, ...],
    ) -> None:
        self.folder = folder
        self.job = job
        self.settings = settings
        self.records = records

    @classmethod
    def open(cls, folder: Path, identity: Mapping[str, Any]) -> "Ledger":
        """Begin a job, or go on with the one that is there.

        Raises ``MismatchError`` when the job that is there has other settings.
        """
        path = folder / RUN
        if not path.exists():
            with written():
                write_json(path, {**identity, JOB: secrets.token_hex(32)})
        job, known = _read_run(path)
        if known != json.loads(json.dumps(dict(identity))):
            different = _different(known, identity)
            raise MismatchError(
                f"the job that is there was begun with other {different}; "
                "repeat its settings, or choose a new folder"
            )
        return cls(folder, job, known, read_records(folder / ROUNDS))

    @property
    def rounds(self) -> int:
        """How many rounds are finished."""
        return len(self.records)

    @property
    def model(self) -> Path:
        """Where the result is once all rounds are finished."""
        return self.folder / "model"

    def checkpoint(self, round_number: int) -> Path:
        """Return the folder of the model package after a round."""
        return self.folder / "rounds" / f"{round_number:04d}"

    @property
    def best(self) -> int:
        """The first round with the lowest loss after it; 0 without any loss."""
        rounds = [
            (record.loss_after, record.round)
            for record in self.records
            if not math.isnan(record.loss_after)
        ]
        return min(rounds)[1] if rounds else 0

    @property
    def is_published(self) -> bool:
        """Tell whether the result is there."""
        return (self.model / "provenance.json").exists()

    def quarantined(self) -> dict[str, str]:
        """Return the sites that are asked no more until they are released, and why.

        They are those with three wrong answers since they were last released.
        """
        released = _read_released(self.folder)
        strikes = Counter(
            site
            for record in self.records
            for site in record.strikes
            if record.round > released.get(site, 0)
        )
        return {
            site: f"it is quarantined after {count} wrong answers; once their cause is "
            f"found, let it in again: ctflow federation release {site} --out JOB"
            for site, count in strikes.items()
            if count >= STRIKES
        }

    @property
    def spent(self) -> dict[str, str]:
        """The sites whose privacy budget is spent, and what is to be said of them."""
        sites = sorted({site for record in self.records for site in record.spent})
        return dict.fromkeys(sites, SPENT)

    @property
    def epsilon(self) -> dict[str, float]:
        """What each site of a private job has spent in all."""
        spent: dict[str, float] = {}
        for record in self.records:
            spent |= record.epsilon
        return spent

    def commit(self, record: RoundRecord, save: Callable[[Path], object]) -> None:
        """Let ``save`` write the round's package, then write the round's line.

        Raises ``IncompleteError`` on a full disk; the round does not count then.
        """
        lines = [each.to_json() for each in (*self.records, record)]
        text = "".join(
            json.dumps(line, sort_keys=True, allow_nan=False) + "\n" for line in lines
        )
        with written():
            _write_folder(self.checkpoint(record.round), save)
            write_text(self.folder / ROUNDS, text)
        self.records = (*self.records, record)
        kept = {self.checkpoint(number) for number in (self.rounds, self.best)}
        for folder in (self.folder / "rounds").iterdir():
            if folder not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def publish(self, round_number: int) -> None:
        """Make the package of a round that is kept the result."""
        chosen = self.checkpoint(round_number)
        with written():
            if (chosen / ADAPTER).exists():
                _copy_folder(chosen / ADAPTER, self.folder / ADAPTER)
            _copy_folder(chosen, self.model, without=(STATE, ADAPTER))


def read_ledger(folder: Path) -> Ledger:
    """Read the job in a folder; raises ``PackageError`` where none is."""
    if not (folder / RUN).exists():
        raise PackageError(f"expected the folder of a job, got one without a {RUN}")
    job, settings = _read_run(folder / RUN)
    return Ledger(folder, job, settings, read_records(folder / ROUNDS))


def playing(folder: Path) -> AbstractContextManager[IO[bytes]]:
    """Hold the job in a folder, so that nobody else plays it at the same time."""
    busy = "this job is being played already; look at: ctflow federation status"
    return locked(folder / LOCK, busy)


def is_playing(folder: Path) -> bool:
    """Tell whether a process on this host plays the job in a folder."""
    return is_locked(folder / LOCK)


def release(folder: Path, site: str) -> None:
    """Let a quarantined site of the job in a folder take part again.

    Raises ``PackageError`` where no job is, ``SettingsError`` for any other site.
    """
    ledger = read_ledger(folder)
    quarantined = ledger.quarantined()
    if site not in quarantined:
        names = ", ".join(sorted(quarantined)) or "none"
        raise SettingsError(
            f"expected a site that is quarantined ({names}), got another; "
            "sites that are not are asked in every round"
        )
    released = {**_read_released(folder), site: ledger.rounds}
    write_json(folder / RELEASED, released)


def _write_folder(folder: Path, save: Callable[[Path], object]) -> None:
    """Let ``save`` fill a folder beside ``folder``, then move it there."""
    partial = folder.with_name(f".partial-{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        save(partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)


@contextmanager
def written() -> Iterator[None]:
    """Say in a sentence that the folder of the job cannot be written to."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or "no reason"
        raise IncompleteError(
            f"the job's folder cannot be written to ({reason}); "
            "make room, and the same command goes on after the last finished round"
        ) from error


def _copy_folder(source: Path, folder: Path, without: Sequence[str] = ()) -> None:
    ignore = shutil.ignore_patterns(*without)
    _write_folder(
        folder,
        lambda partial: shutil.copytree(
            source, partial, ignore=ignore, dirs_exist_ok=True
        ),
    )


def _read_run(path: Path) -> tuple[str, dict[str, Any]]:
    """Return the name of a job and the settings that its result depends on."""
    try:
        known = read_json(path)
        job = known.pop(JOB)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        job, known = None, {}
    if not is_sha256(job):
        raise PackageError(
            f"{RUN} of the job is not what was written; restore it or begin in a new "
            "folder"
        )
    return job, known


def _read_released(folder: Path) -> dict[str, int]:
    """Read after which round each site was released last."""
    path = folder / RELEASED
    try:
        released = read_json(path) if path.exists() else {}
    except (ValueError, RecursionError):
        released = None
    if not isinstance(released, dict) or any(
        type(number) is not int for number in released.values()
    ):
        raise PackageError(
            f"{RELEASED} of the job must hold a round for each site; restore it, or "
            "remove it and release the sites again"
        )
    return released


def _different(known: Mapping[str, Any], identity: Mapping[str, Any]) -> str:
    """Name the settings that differ, by their keys only."""
    keys = sorted(set(known) | set(identity))
    return ", ".join(key for key in keys if known.get(key) != identity.get(key))
