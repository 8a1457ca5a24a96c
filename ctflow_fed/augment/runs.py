"""Who fills a folder at the moment, and what the last who did could not draw."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ctflow_fed.augment.shard import Shard
from ctflow_fed.errors import IncompleteError
from ctflow_fed.files import write_atomically
from ctflow_fed.locks import is_locked, locked

__all__ = ["Runs"]

BUSY = (
    "another process fills this folder; wait for it, or look at: ctflow augment status"
)


MOMENT = 0.3
"""Seconds: who only asks whether a run goes on holds its lock for as long as that."""


class Runs:
    """The runs that fill a folder, each with files of its own.

    ``run.lock`` (``run-3-of-16.lock`` of a shard) is held while a run goes on and was
    touched when it began; ``failed.jsonl`` (``failed-3-of-16.jsonl``) names what the
    last such run could not draw.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def going_on(self, shard: Shard) -> Iterator[None]:
        """Be the only run of a shard; shards of another number are refused.

        Raises ``IncompleteError`` where another process fills the same part.
        """
        path = self._lock(shard)
        with locked(path, BUSY, MOMENT):
            for other in self.live():
                if other != path and not _is_beside(other, shard):
                    raise IncompleteError(BUSY)
            os.utime(path)
            yield

    def live(self) -> list[Path]:
        """Return the locks that are held."""
        return [path for path in sorted(self.folder.glob("run*.lock")) if _held(path)]

    def began(self) -> float | None:
        """Return when the first of the runs that go on began; None where none does."""
        return min((path.stat().st_mtime for path in self.live()), default=None)

    def write_failures(self, shard: Shard, reasons: Mapping[str, str]) -> None:
        """Write down which volumes a run could not draw and why; no report is in it."""
        lines = [
            json.dumps({"sample_id": each, "error": reasons[each]}, sort_keys=True)
            for each in sorted(reasons)
        ]
        text = "".join(f"{line}\n" for line in lines)
        path = self.folder / f"failed{shard.name}.jsonl"
        write_atomically(path, lambda partial: partial.write_text(text, "utf-8"))

    def failed(self) -> set[str]:
        """Return the ids that the last runs could not draw."""
        found: set[str] = set()
        for path in self.folder.glob("failed*.jsonl"):
            text = path.read_text(encoding="utf-8", errors="replace")
            found.update(re.findall(r'"sample_id": "([0-9a-f]{32})"', text))
        return found

    def _lock(self, shard: Shard) -> Path:
        return self.folder / f"run{shard.name}.lock"


def _held(path: Path) -> bool:
    """Tell whether a lock is held; a folder that may not be written has no run."""
    return os.access(path, os.W_OK) and is_locked(path)


def _is_beside(path: Path, shard: Shard) -> bool:
    """Whether a lock is of another part of the same division."""
    return shard.count > 1 and path.stem.endswith(f"-of-{shard.count}")
