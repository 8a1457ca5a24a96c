"""What of a run is done, how long it took and how much memory it needed."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from ctflow_fed.demo.memory import PeakMemory
from ctflow_fed.errors import MismatchError, StoreError
from ctflow_fed.files import read_json, write_json

__all__ = ["Journal", "StageRecord"]


@dataclass(frozen=True)
class StageRecord:
    """A finished stage."""

    key: str
    title: str
    seconds: float
    peak_rss_mb: float


class Journal:
    """The stages that a folder's run has finished, in ``journal.json``.

    A stage that was stopped is not in it, and is called again by the next run: it has
    to go on by itself from what it finds. The time of a stopped attempt is lost:
    ``resumed`` tells that the times may be short of it.
    """

    def __init__(self, folder: Path, identity: str, say: Callable[[str], None]) -> None:
        """Open the journal of ``folder``; one of other settings is refused."""
        self._path = folder / "journal.json"
        self._identity = identity
        self._say = say
        self.records: dict[str, StageRecord] = {}
        self.resumed = False
        self._found = self._path.exists()
        if self._found:
            self._read()
        else:
            self._write()

    def stage(
        self, key: str, title: str, work: Callable[[], object], *, step: str = ""
    ) -> None:
        """Do the work of a stage, unless it is done; say so either way.

        ``step`` tells whoever waits how far this is, as in ``2/5``.
        """
        said = f"{step} {title}".strip()
        if key in self.records:
            self._say(f"{said}: done before, {self.records[key].seconds:.0f} s")
            return
        self.resumed |= self._found
        self._say(f"{said} ...")
        started = time.monotonic()
        with PeakMemory() as memory:
            work()
        seconds = round(time.monotonic() - started, 1)
        self.records[key] = StageRecord(key, title, seconds, round(memory.peak_mb, 1))
        self._write()
        self._say(f"{said}: {seconds:.0f} s, {memory.peak_mb:.0f} MB")

    def _read(self) -> None:
        try:
            known = read_json(self._path)
            identity = known["identity"]
            records = [StageRecord(**record) for record in known["stages"]]
            self.resumed = known["resumed"] is True
        except (ValueError, TypeError, KeyError) as error:
            raise StoreError(
                "journal.json is not one of ctflow demo; choose an empty folder"
            ) from error
        if identity != self._identity:
            raise MismatchError(
                "the folder holds a demo with other settings or another seed; "
                "choose another folder or repeat those settings"
            )
        self.records = {record.key: record for record in records}

    def _write(self) -> None:
        stages = [asdict(record) for record in self.records.values()]
        write_json(
            self._path,
            {"identity": self._identity, "resumed": self.resumed, "stages": stages},
        )
