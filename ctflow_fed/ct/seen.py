"""What was looked at and is not in the store, so that it is not read again.

seen.jsonl    one line an entry of the source: its keyed id, a keyed digest of all that
              its verdict depends on, and the ids of its studies
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ctflow_fed import __version__
from ctflow_fed.ct.desk import Entry, IntakeSettings
from ctflow_fed.ct.dicom.series import visible_files
from ctflow_fed.ct.privacy.key import SiteKey
from ctflow_fed.ct.report_table import Report
from ctflow_fed.errors import VolumeError
from ctflow_fed.files import append_json, digest_of

__all__ = ["Seen"]

FILE = "seen.jsonl"


@dataclass(frozen=True)
class _Look:
    """An entry as it was, and its studies, by their keyed ids."""

    entry: str
    state: str
    studies: tuple[str, ...]


class Seen:
    """Remembers entries by sizes and times of their files; no path is written down."""

    def __init__(
        self,
        folder: Path,
        key: SiteKey,
        settings: IntakeSettings,
        table: Mapping[str, Report],
    ) -> None:
        self._folder = folder
        self._hashed = key.hashed
        self._policy = asdict(settings.policy)
        self._table = table
        self._all = digest_of([[name, asdict(each)] for name, each in table.items()])
        self._looks = {look.entry: look for look in _read(folder / FILE)}

    def studies(self, entry: Entry) -> tuple[str, ...]:
        """Return the studies of an entry, none when it is new or has changed."""
        look = self._looks.get(self._id(entry))
        return look.studies if look and look.state == self._state(entry) else ()

    def note(self, entry: Entry, studies: tuple[str, ...]) -> None:
        """Remember an entry; on a full disk it is looked at again."""
        look = _Look(self._id(entry), self._state(entry), studies)
        try:
            append_json(self._folder / FILE, asdict(look))
        except OSError:
            return
        self._looks[look.entry] = look

    def _id(self, entry: Entry) -> str:
        return self._hashed(f"entry/{entry.path.name}")

    def _state(self, entry: Entry) -> str:
        """Digest what a verdict depends on: files, table, policy and version."""
        report = self._table.get(entry.name)
        told = digest_of(asdict(report)) if report else self._all
        value = [_files(entry.path), told, self._policy, __version__]
        return self._hashed(f"state/{digest_of(value)}")


def _files(path: Path) -> list[tuple[str, int, int]]:
    try:
        paths = visible_files(path) if path.is_dir() else [path]
        return [
            (str(each.relative_to(path)), found.st_size, found.st_mtime_ns)
            for each in paths
            for found in [each.stat()]
        ]
    except (OSError, VolumeError):
        return []


def _read(path: Path) -> list[_Look]:
    """Read what is remembered; of a broken file nothing is, and all is read again."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
        values = [json.loads(line) for line in lines]
        return [
            _Look(str(value["entry"]), str(value["state"]), tuple(value["studies"]))
            for value in values
        ]
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return []
