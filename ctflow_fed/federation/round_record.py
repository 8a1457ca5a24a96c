"""One line of rounds.jsonl: what was done in a round."""

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_origin

from ctflow_fed.errors import PackageError

__all__ = ["RoundRecord", "read_records"]

LOSSES = {"train_loss_first", "train_loss_last", "loss_before", "loss_after"}


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """One line of rounds.jsonl.

    ``slices`` has the weight of each site that took part, ``moved`` how far its update
    went, relative to the length of the weights; ``refused`` has the reason for each
    site that did not take part in all of the round, and ``strikes`` are those of them
    whose answer was wrong. The losses are means over sites by their shares, of the
    first and the last quarter of training and of the global model before and after the
    round; a private job has none, nan here and null in the file. ``losses`` are those
    of the global model after the round at each site. In a private job ``epsilon`` is
    what each site that took part has spent in all, and ``spent`` are those that cannot
    take another step. ``digest`` is that of the model's weights, ``state`` that of what
    the server carries on beside them, empty if nothing. ``sent`` and ``received`` are
    the bytes of all arrays that went to the sites and came from them; those of the
    first evaluation, in which every site gets the weights for the first time, count for
    round 1. ``shards`` is in how many files they travelled that were too large for a
    message. ``attempts`` is how often the round was begun: twice where the first secure
    sum came to nothing.
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
    losses: dict[str, float]
    seconds: float
    sent: int
    received: int
    shards: int
    digest: str
    state: str
    epsilon: dict[str, float]
    spent: list[str]
    attempts: int

    @property
    def bytes(self) -> int:
        """The bytes of all arrays that travelled, in both directions."""
        return self.sent + self.received

    @classmethod
    def from_json(cls, value: object) -> "RoundRecord":
        """Read a line; one of other keys or of kinds that do not fit is refused."""
        kinds = {each.name: get_origin(each.type) or each.type for each in fields(cls)}
        if isinstance(value, dict):
            losses = dict.fromkeys(LOSSES & set(value), math.nan)
            value |= {key: each for key, each in losses.items() if value[key] is None}
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

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        values = asdict(self)
        absent = {key for key in LOSSES if math.isnan(values[key])}
        return values | dict.fromkeys(absent)


def read_records(path: Path) -> tuple[RoundRecord, ...]:
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
