"""The folder of a federated job: what was done, and from where to go on.

    run.json             the settings that the result depends on
    rounds.jsonl         one line a finished round
    rounds/NNNN/         the model package after round NNNN and the server's state; the
                         last and the best are kept
    model/               the model package that is the result
    adapter/             the adapter that was merged into it, where one was trained
    released.json        the sites that were let in again, and after which round

A round is finished when its line is in rounds.jsonl; its package is in place by then.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_origin

from ctflow_fed.errors import MismatchError, PackageError, SettingsError
from ctflow_fed.files import read_json, write_json, write_text

__all__ = ["ADAPTER", "STATE", "Ledger", "RoundRecord", "read_ledger", "release"]

ADAPTER = "adapter"
"""The adapter in the folder of a round, where one is trained."""

STATE = "server.safetensors"
"""What the server carries on beside a model package, where there is anything."""

RELEASED = "released.json"
STRIKES = 3  # wrong answers before a site is quarantined


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """One line of rounds.jsonl.

    ``slices`` has the weight of each site that took part, ``moved`` how far its update
    went, relative to the length of the weights; ``refused`` has the reason for each
    site that did not take part in all of the round, and ``strikes`` are those of them
    whose answer was wrong. The losses are means over sites by their shares, of the
    first and the last quarter of training and of the global model before and after the
    round; ``digest`` is that of the model's weights, ``state`` that of what the server
    carries on beside them, empty if nothing. ``sent`` and ``received`` are the bytes of
    all arrays that went to the sites and came from them; those of the first evaluation,
    in which every site gets the weights for the first time, count for round 1.
    """

    round: int
    slices: dict[str, int]
    moved: dict[str, float]
    refused: dict[str, str]
    strikes: list[str]
    train_loss_first: float
    train_loss_last: float
    loss_before: float
    loss_after: float
    seconds: float
    sent: int
    received: int
    digest: str
    state: str

    @property
    def bytes(self) -> int:
        """The bytes of all arrays that travelled, in both directions."""
        return self.sent + self.received

    @classmethod
    def from_json(cls, value: object) -> "RoundRecord":
        """Read a line; one of other keys or of kinds that do not fit is refused."""
        kinds = {each.name: get_origin(each.type) or each.type for each in fields(cls)}
        if (
            not isinstance(value, dict)
            or set(value) != set(kinds)
            or any(type(value[name]) is not kind for name, kind in kinds.items())
        ):
            raise PackageError(
                "a line of rounds.jsonl is not the record of a round; "
                "restore the file or begin in a new folder"
            )
        return cls(**value)


class Ledger:
    """The job in one folder; made with `Ledger.open`. It has one writer at a time."""

    def __init__(self, folder: Path, records: tuple[RoundRecord, ...]) -> None:
        self.folder = folder
        self.records = records

    @classmethod
    def open(cls, folder: Path, identity: Mapping[str, Any]) -> "Ledger":
        """Begin a job, or go on with the one that is there.

        Raises ``MismatchError`` when the job that is there has other settings.
        """
        path = folder / "run.json"
        if not path.exists():
            write_json(path, dict(identity))
        try:
            known = read_json(path)
        except ValueError:
            raise PackageError(
                "run.json of the job is no JSON; restore it or begin in a new folder"
            ) from None
        if known != json.loads(json.dumps(dict(identity))):
            different = _different(known, identity)
            raise MismatchError(
                f"the job that is there was begun with other {different}; "
                "repeat its settings, or choose a new folder"
            )
        return cls(folder, _read_records(folder / "rounds.jsonl"))

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
        """The first round with the lowest loss after it; 0 before any round."""
        rounds = [(record.loss_after, record.round) for record in self.records]
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

    def commit(self, record: RoundRecord, save: Callable[[Path], object]) -> None:
        """Let ``save`` write the round's package, then write the round's line."""
        _write_folder(self.checkpoint(record.round), save)
        lines = [asdict(each) for each in (*self.records, record)]
        text = "".join(
            json.dumps(line, sort_keys=True, allow_nan=False) + "\n" for line in lines
        )
        write_text(self.folder / "rounds.jsonl", text)
        self.records = (*self.records, record)
        kept = {self.checkpoint(number) for number in (self.rounds, self.best)}
        for folder in (self.folder / "rounds").iterdir():
            if folder not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def publish(self, round_number: int) -> None:
        """Make the package of a round that is kept the result."""
        chosen = self.checkpoint(round_number)
        if (chosen / ADAPTER).exists():
            _copy_folder(chosen / ADAPTER, self.folder / ADAPTER)
        _copy_folder(chosen, self.model, without=(STATE, ADAPTER))


def read_ledger(folder: Path) -> Ledger:
    """Read the job in a folder; raises ``PackageError`` where none is."""
    if not (folder / "run.json").exists():
        raise PackageError("expected the folder of a job, got one without a run.json")
    return Ledger(folder, _read_records(folder / "rounds.jsonl"))


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
    partial.mkdir(parents=True)
    save(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)


def _copy_folder(source: Path, folder: Path, without: Sequence[str] = ()) -> None:
    ignore = shutil.ignore_patterns(*without)
    _write_folder(
        folder,
        lambda partial: shutil.copytree(
            source, partial, ignore=ignore, dirs_exist_ok=True
        ),
    )


def _read_records(path: Path) -> tuple[RoundRecord, ...]:
    """Read the finished rounds, which must follow one another from the first."""
    if not path.exists():
        return ()
    try:
        values = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    except (ValueError, RecursionError):
        values = [None]
    records = tuple(RoundRecord.from_json(value) for value in values)
    if [record.round for record in records] != list(range(1, len(records) + 1)):
        raise PackageError(
            "rounds.jsonl must hold round 1, 2, 3 and so on; "
            "restore it or begin in a new folder"
        )
    return records


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


def _different(known: object, identity: Mapping[str, Any]) -> str:
    """Name the settings that differ, by their keys only."""
    if not isinstance(known, dict):
        return "settings"
    keys = sorted(set(known) | set(identity))
    return ", ".join(key for key in keys if known.get(key) != identity.get(key))
