"""What the process that plays a job is doing: progress.json in the job's folder.

It is written for people who look. That a process is there at all is known from the lock
that it holds, so that a job whose process was killed is not taken for one that runs.
"""

import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ctflow_fed.files import read_json, write_json

__all__ = ["Progress", "Reporter", "read_progress"]

FILE = "progress.json"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A question that is out: ``phase`` is ``train`` or ``evaluate``.

    ``since`` is Unix time; ``asked`` are the sites that were there to be asked, and
    ``answered`` those of them that have. Where the job ended before its last round,
    ``ended`` is why.
    """

    phase: str = ""
    round: int = 0
    since: float = 0.0
    asked: tuple[str, ...] = ()
    answered: tuple[str, ...] = ()
    ended: str = ""


class Reporter:
    """Writes what a job is doing; a disk that is full stops no job for that."""

    def __init__(self, folder: Path) -> None:
        self._path, self._progress = folder / FILE, Progress()

    def ask(self, phase: str, round_number: int, sites: Collection[str]) -> None:
        """Say that a question went out."""
        asked, now = tuple(sorted(sites)), time.time()
        self._write(Progress(phase=phase, round=round_number, since=now, asked=asked))

    def hear(self, site: str) -> None:
        """Say that a site has answered."""
        answered = tuple(sorted({*self._progress.answered, site}))
        self._write(replace(self._progress, answered=answered))

    def end(self, why: str) -> None:
        """Say why the job ends before its last round."""
        self._write(replace(self._progress, ended=why))

    def _write(self, progress: Progress) -> None:
        self._progress = progress
        with suppress(OSError):
            write_json(self._path, asdict(progress))


def read_progress(folder: Path) -> Progress:
    """Read what was written last, if anything that can be read."""
    try:
        values = read_json(folder / FILE)
        lists = {key: tuple(values[key]) for key in ("asked", "answered")}
        return Progress(**{**values, **lists})
    except (OSError, KeyError, TypeError, ValueError, RecursionError):
        return Progress()
