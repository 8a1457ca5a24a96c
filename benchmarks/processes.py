"""Processes of a benchmark: starting them, and what they take of memory."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

__all__ = ["ENVIRONMENT", "MemoryWatch", "free_ports", "process", "until"]

SECONDS = 0.3
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
}


class MemoryWatch:
    """Watches some processes and their descendants; used with ``with``.

    ``peaks`` is the most that each program of a group has had, ``totals`` the most that
    all of a group had at one time, in MB of resident memory. What several processes map
    of one file counts for each of them.
    """

    def __init__(self, groups: Mapping[str, int]) -> None:
        self.peaks: dict[str, dict[str, float]] = {name: {} for name in groups}
        self.totals: dict[str, float] = dict.fromkeys(groups, 0.0)
        self._groups = groups
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "MemoryWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(SECONDS):
            parents = _parents()
            for name, root in self._groups.items():
                self._look(name, [p for p in parents if _is_under(p, root, parents)])

    def _look(self, group: str, processes: list[int]) -> None:
        now = 0.0
        for process in processes:
            status = _status(process)
            if status:
                now += status["VmRSS"]
                program, peaks = _program(process), self.peaks[group]
                peaks[program] = max(peaks.get(program, 0.0), status["VmHWM"])
        self.totals[group] = max(self.totals[group], now)


def _parents() -> dict[int, int]:
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(path.parent.name)] = int(words[1])
    return parents


def _is_under(process: int, root: int, parents: Mapping[int, int]) -> bool:
    while process not in (root, 0):
        process = parents.get(process, 0)
    return process == root


def _status(process: int) -> dict[str, float]:
    """Return the MB of a process, or nothing if it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split(":") for line in lines if line.startswith(("VmRSS", "VmHWM")))
    return {name: int(value.split()[0]) * 1024 / 1e6 for name, value in pairs}


def _program(process: int) -> str:
    folder = Path(f"/proc/{process}")
    try:
        words = (folder / "cmdline").read_bytes().decode().split("\0")
        name = (folder / "comm").read_text().strip()
    except OSError:
        return "ended"
    if name == "flwr-clientapp":  # a copy of another process, but for its name
        return name
    if "-m" in words:
        return words[words.index("-m") + 1].rpartition(".")[2]
    names = [Path(word).name for word in words[:2]]
    return names[1] if names[0].startswith("python") else names[0].split(":")[0]


def free_ports(count: int) -> list[int]:
    """Return ports on which nothing listens."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@contextmanager
def process(command: list[str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a command until the end; what it says goes into a file."""
    with log.open("wb") as said:
        started = subprocess.Popen(command, env=ENVIRONMENT, stdout=said, stderr=said)
    try:
        yield started
    finally:
        started.terminate()
        started.wait(timeout=60)


def until(
    done: Callable[[], bool], server: "subprocess.Popen[bytes]", seconds: float
) -> None:
    """Wait for something that a server which runs must bring about."""
    end = time.monotonic() + seconds
    while not done():
        if server.poll() is not None or time.monotonic() > end:
            raise SystemExit("the federation has stopped; its logs tell why")
        time.sleep(0.5)
