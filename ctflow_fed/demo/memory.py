"""How much memory a program and the programs it started hold at most."""

import os
import resource
import sys
import threading
from pathlib import Path

__all__ = ["PeakMemory", "resident_mb"]

EVERY_SECONDS = 0.5
MEGABYTE = 2**20


class PeakMemory:
    """Watch memory while a ``with`` block runs; `peak_mb` holds the most that was seen.

    Every half second the resident memory of this process and of all its descendants is
    summed. Pages that they share are counted once a process, so the sum is an upper
    bound; a peak shorter than half a second may be missed. Where there is no ``/proc``,
    the peaks of this process and of its largest finished child are added instead.
    """

    def __init__(self) -> None:
        self.peak_mb = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._done.wait(EVERY_SECONDS):
            self._look()

    def _look(self) -> None:
        self.peak_mb = max(self.peak_mb, resident_mb(os.getpid()))


def resident_mb(root: int) -> float:
    """Return the resident memory of a process and its descendants in MB."""
    processes = Path("/proc")
    if not (processes / "self" / "statm").exists():
        return _peak_without_proc()
    parents: dict[int, int] = {}
    pages: dict[int, int] = {}
    for folder in processes.iterdir():
        if folder.name.isdigit():
            try:
                after_name = (folder / "stat").read_text().rpartition(")")[2].split()
                parents[int(folder.name)] = int(after_name[1])
                pages[int(folder.name)] = int((folder / "statm").read_text().split()[1])
            except (OSError, ValueError, IndexError):
                continue  # it ended while we looked
    family = _family(root, parents)
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    return sum(pages.get(each, 0) for each in family) * page_bytes / MEGABYTE


def _family(root: int, parents: dict[int, int]) -> set[int]:
    """Return ``root`` and all whose line of parents leads to it."""
    family, found = {root}, {root}
    while found:
        found = {child for child, parent in parents.items() if parent in found}
        found -= family
        family |= found
    return family


def _peak_without_proc() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    users = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    peaks = [resource.getrusage(user).ru_maxrss for user in users]
    return sum(peaks) * unit / MEGABYTE
