"""The folder of a federated job: what was done, and from where to go on.

    run.json             the settings that the result depends on
    rounds.jsonl         one line a finished round
    rounds/NNNN/         the model package after round NNNN; only the last is kept
    model/               the model package after the last round

A round is finished when its line is in rounds.jsonl; its package is in place by then.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_origin

from ctflow_fed.errors import MismatchError, PackageError
from ctflow_fed.files import read_json, write_atomically, write_json

__all__ = ["Ledger", "RoundRecord"]


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """One line of rounds.jsonl.

    ``slices`` has the weight of each site that took part, ``refused`` the reason for
    each that did not; the losses are means over sites by their slices, of the first and
    the last quarter of training and of the global model before and after the round;
    ``digest`` is that of the weights; ``bytes`` counts arrays that were sent and
    received.
    """

    round: int
    slices: dict[str, int]
    refused: dict[str, str]
    train_loss_first: float
    train_loss_last: float
    loss_before: float
    loss_after: float
    seconds: float
    bytes: int
    digest: str

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

    def is_finished(self, rounds: int) -> bool:
        """Tell whether nothing is left to do."""
        return self.rounds >= rounds and (self.model / "provenance.json").exists()

    def commit(self, record: RoundRecord, save: Callable[[Path], object]) -> None:
        """Let ``save`` write the round's package, then write the round's line."""
        _write_folder(self.checkpoint(record.round), save)
        lines = [asdict(each) for each in (*self.records, record)]
        text = "".join(
            json.dumps(line, sort_keys=True, allow_nan=False) + "\n" for line in lines
        )
        write_atomically(
            self.folder / "rounds.jsonl",
            lambda partial: partial.write_text(text, encoding="utf-8"),
        )
        self.records = (*self.records, record)
        for folder in (self.folder / "rounds").iterdir():
            if folder != self.checkpoint(record.round):
                shutil.rmtree(folder, ignore_errors=True)

    def publish(self) -> None:
        """Make the package of the last finished round the result."""
        last = self.checkpoint(self.rounds)
        _write_folder(
            self.model, lambda folder: shutil.copytree(last, folder, dirs_exist_ok=True)
        )


def _write_folder(folder: Path, save: Callable[[Path], object]) -> None:
    """Let ``save`` fill a folder beside ``folder``, then move it there."""
    partial = folder.with_name(f".partial-{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)


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


def _different(known: object, identity: Mapping[str, Any]) -> str:
    """Name the settings that differ, by their keys only."""
    if not isinstance(known, dict):
        return "settings"
    keys = sorted(set(known) | set(identity))
    return ", ".join(key for key in keys if known.get(key) != identity.get(key))
