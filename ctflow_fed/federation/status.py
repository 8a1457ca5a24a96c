"""How a job stands, as its folder tells: what is done, and whether anybody plays it."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ctflow_fed.federation.ledger import is_playing, read_ledger
from ctflow_fed.federation.progress import Progress, read_progress
from ctflow_fed.federation.round_record import RoundRecord

__all__ = ["JobStatus", "status_of"]

RECENT = 3  # rounds, by whose mean time the rest is estimated


@dataclass(frozen=True, kw_only=True)
class JobStatus:
    """``state`` is ``done``, ``running``, or ``stopped`` before the last round.

    ``rounds`` is how many there are in all, at most, ``records`` has those that are
    finished. ``progress`` is what goes on or went on last, ``left`` how many seconds
    the rest will take, None where that is not known. ``epsilon`` is what of the privacy
    budget each site of a private job has spent. ``model`` is where the result is.
    """

    state: str
    rounds: int
    records: tuple[RoundRecord, ...]
    progress: Progress
    left: float | None
    epsilon: dict[str, float]
    model: str

    def to_json(self) -> dict[str, Any]:
        """Return the status as JSON has it."""
        records = [record.to_json() for record in self.records]
        return {**asdict(self), "records": records}


def status_of(folder: Path) -> JobStatus:
    """Return how the job in a folder stands; raises ``PackageError`` where none is."""
    ledger, progress = read_ledger(folder), read_progress(folder)
    rounds = int(ledger.settings["rounds"])
    if ledger.is_published:
        state = "done"
    else:
        state = "running" if is_playing(folder) else "stopped"
    recent = [record.seconds for record in ledger.records[-RECENT:]]
    left = None
    if state == "running" and recent:
        mean = sum(recent) / len(recent)
        since = time.time() - progress.since
        left = max(0.0, mean * (rounds - ledger.rounds) - min(since, mean))
    return JobStatus(
        state=state,
        rounds=rounds,
        records=ledger.records,
        progress=progress,
        left=left,
        epsilon=ledger.epsilon,
        model=str(ledger.model) if ledger.is_published else "",
    )
