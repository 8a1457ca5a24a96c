"""A job under fire: real processes are killed at random; it ends as if none had been.

Two kills in three rounds, of what is missed at once. ``CTFLOW_KILLS`` and
``CTFLOW_ROUNDS`` say how many for a longer siege, in which a site's processes are
killed too: it takes a minute until they are missed. ``--log-cli-level info`` tells.
"""

import logging
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from ctflow_fed.deployment.site.audit import AuditLog
from ctflow_fed.federation import is_playing, read_ledger, read_progress
from ctflow_fed.model import load_package

pytestmark = [
    pytest.mark.flower,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed"),
]
KILLS = int(os.environ.get("CTFLOW_KILLS", "2"))
ROUNDS = int(os.environ.get("CTFLOW_ROUNDS", "3"))
OPTIONS = {"precision": "int8", "optimizer": "kept", "min_sites": "2", "steps": "2"}
MISSED_AT_ONCE = ("the ServerApp", "the SuperLink", "the proxy")
ALL = (*MISSED_AT_ONCE, "the server", "a SuperNode", "a client in training")
AGAIN_SECONDS = 20.0
"""After which a job that nobody plays is submitted again."""

LONGEST_SECONDS = 600.0
"""Within which a job under fire must have got on by a round."""

log = logging.getLogger(__name__)


class Siege:
    """A job of two sites whose processes are killed, and started as systemd does."""

    def __init__(self, server, stores: dict[str, Path], out: Path, seed: int) -> None:
        self.server, self.stores, self.out = server, stores, out
        self.chance, self.kills = random.Random(seed), []
        self._submitted = -AGAIN_SECONDS
        self._moved = time.monotonic(), 0

    @property
    def rounds(self) -> int:
        """How many rounds are done."""
        return read_ledger(self.out).rounds if (self.out / "run.json").exists() else 0

    def play(self, kinds: list[str]) -> None:
        """Play the job to its end; kill something of each kind on the way."""
        for number, kind in enumerate(kinds):
            begun = number * ROUNDS // len(kinds)
            self._tend_until(lambda begun=begun: self.rounds >= begun and self._plays())
            self._tend_for(self.chance.uniform(0.0, 4.0))
            self._tend_until(lambda kind=kind: self._kill(kind))
        self._tend_until((self.out / "model" / "provenance.json").exists)

    def _plays(self) -> bool:
        """Tell whether the sites have been asked something."""
        return is_playing(self.out) and read_progress(self.out).round > 0

    def _kill(self, kind: str) -> bool:
        """Kill a process of a kind, if there is one."""
        if (self.out / "model").exists():
            raise AssertionError(f"the job was done before {kind} could be killed")
        victims = self._victims()[kind]()
        phase = read_progress(self.out).phase
        if not victims or (kind == "a client in training" and phase != "train"):
            return False
        with suppress(ProcessLookupError):
            os.kill(self.chance.choice(victims), signal.SIGKILL)
        self.kills.append(kind)
        log.info("killed %s in round %d, %s", kind, self.rounds + 1, phase)
        return True

    def _victims(self) -> dict[str, Callable[[], list[int]]]:
        """Return for each kind a function that finds its processes."""
        server = self.server
        nodes, ports = server.sites.values(), server.ports.values()
        master = server.folder / "server" / "nginx.pid"
        return {
            "the ServerApp": lambda: server.pids("flwr-serverapp", server.inside),
            "the SuperLink": lambda: server.pids("flower-superlink", server.inside),
            "the proxy": lambda: [int(e) for e in lines_of(master)],
            "the server": lambda: [server.process.pid],
            "a SuperNode": lambda: [e.pid for e in nodes if e.poll() is None],
            "a client in training": lambda: [
                pid for port in ports for pid in server.pids("flwr-clientapp", port)
            ],
        }

    def _tend_until(self, done: Callable[[], bool]) -> None:
        while not done():
            self._tend()
            time.sleep(0.2)

    def _tend_for(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self._tend_until(lambda: time.monotonic() > end)

    def _tend(self) -> None:
        """Start again what has ended, and submit the job where nobody plays it."""
        if not self.server.runs():
            self.server.process.wait()
            self.server.start()
            self._submitted = -AGAIN_SECONDS
        for site, store in self.stores.items():
            process = self.server.sites.get(site)
            if process is None or process.poll() is not None:
                self.server.start_site(site, store)
        now = time.monotonic()
        if is_playing(self.out) or (self.out / "model").exists():
            self._submitted = now - AGAIN_SECONDS
        elif now - self._submitted > AGAIN_SECONDS:
            with suppress(subprocess.CalledProcessError):  # a server that has just died
                self.server.submit(self.out, words())
                self._submitted = time.monotonic()
        if self.rounds > self._moved[1]:
            self._moved = now, self.rounds
        assert now - self._moved[0] < LONGEST_SECONDS, self.server.said()[-4000:]


def lines_of(path: Path) -> list[str]:
    """Return the lines of a file, none where it is not there."""
    return path.read_text().split() if path.exists() else []


def words() -> str:
    """Return the options of the job."""
    named = {**OPTIONS, "rounds": str(ROUNDS)}
    return " ".join(f"--{k.replace('_', '-')} {value}" for k, value in named.items())


def kinds_of(kills: int, chance: random.Random) -> list[str]:
    """Return what is to be killed; each kind comes as often as the others."""
    known = MISSED_AT_ONCE if kills <= len(MISSED_AT_ONCE) else ALL
    kinds = [known[number % len(known)] for number in range(kills)]
    return chance.sample(kinds, len(kinds))


def test_a_job_whose_processes_are_killed_ends_as_one_that_nobody_disturbed(
    start_server, federation, sites, tmp_path
):
    calm = tmp_path / "calm"
    code, _, said = federation.run(sites, calm, rounds=str(ROUNDS), **OPTIONS)
    assert code == 0, said
    server = start_server(tmp_path)
    stores = dict(zip(("a", "b"), sites, strict=True))
    siege = Siege(server, stores, tmp_path / "job", seed=4)
    try:
        siege.play(kinds_of(KILLS, siege.chance))
    finally:
        server.stop()

    assert len(siege.kills) == KILLS
    expected, got = read_ledger(calm).records, read_ledger(siege.out).records
    assert [each.round for each in got] == list(range(1, ROUNDS + 1))
    for record, undisturbed in zip(got, expected, strict=True):
        assert record.slices == undisturbed.slices
        assert record.strikes == []
        assert record.digest == undisturbed.digest
        assert record.state == undisturbed.state
    assert load_package(siege.out / "model").digest == expected[-1].digest
    for site in stores:
        AuditLog(server.root / site).verify()
