"""Sites on disk, and a command line as a user starts it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ctflow_fed.deployment.coordinator import nginx_command

PROGRAMS = Path(sys.executable).parent
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{PROGRAMS}{os.pathsep}{os.environ.get('PATH', '')}",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "OMP_NUM_THREADS": "1",
}
JOB = {
    **{"--rounds": "2", "--steps": "2", "--preset": "nano", "--batch-clips": "2"},
    **{"--precision": "int8", "--optimizer": "kept"},  # whatever a site may keep
}


@pytest.fixture(scope="session")
def sites(haar_store: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two sites: `a` with two studies and `b` with three."""
    root = tmp_path_factory.mktemp("sites")
    for name in ("a", "b"):
        shutil.copytree(haar_store, root / name)
    index = root / "a" / "index.jsonl"
    index.write_text("".join(index.read_text().splitlines(keepends=True)[:2]))
    return [root / "a", root / "b"]


def _heed_interrupts() -> None:
    """Heed SIGINT, which whoever runs the tests in the background has ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Command:
    """``ctflow federation run --local``, started as a user does."""

    def start(
        self, sites: list[Path], out: Path, **options: str
    ) -> "subprocess.Popen[bytes]":
        """Start the command; ``rounds="3"`` stands for ``--rounds 3``.

        What it says goes into files beside ``out``: Ray's processes outlive a killed
        command for a while and would hold a pipe open.
        """
        named = {f"--{key.replace('_', '-')}": value for key, value in options.items()}
        words = [word for pair in {**JOB, **named}.items() for word in pair]
        command = ["ctflow", "federation", "run", "--local", *map(str, sites)]
        with (
            out.with_suffix(".stdout").open("wb") as stdout,
            out.with_suffix(".stderr").open("wb") as stderr,
        ):
            return subprocess.Popen(
                [*command, "--out", str(out), *words],
                env=ENVIRONMENT,
                stdout=stdout,
                stderr=stderr,
                preexec_fn=_heed_interrupts,
            )

    def run(self, sites: list[Path], out: Path, **options: str) -> tuple[int, str, str]:
        """Run the command to its end; return its exit code, stdout and stderr."""
        code = self.start(sites, out, **options).wait(timeout=240)
        return code, said(out, "stdout"), said(out, "stderr")


def said(out: Path, stream: str) -> str:
    """Return what the command of a job said last."""
    return out.with_suffix(f".{stream}").read_text()


@pytest.fixture(scope="session")
def federation() -> Command:
    """The command, not yet started."""
    return Command()


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The environment of a process that may start Flower's programs."""
    return dict(ENVIRONMENT)


@pytest.fixture(scope="session")
def unbroken(
    federation: Command, sites: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """A finished job of two rounds, and what the user saw of it."""
    out = tmp_path_factory.mktemp("unbroken") / "job"
    code, stdout, stderr = federation.run(sites, out)
    assert code == 0, stderr
    return out, stdout + stderr


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """A function that returns a port on which nothing listens."""

    def free() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return probe.getsockname()[1]

    return free


@pytest.fixture(scope="session")
def start_nginx() -> Callable[[Path, int], "subprocess.Popen[bytes]"]:
    """A function that starts the nginx of a server's folder and waits for its port."""

    def start(server: Path, port: int) -> "subprocess.Popen[bytes]":
        nginx = subprocess.Popen(nginx_command(), cwd=server, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 20
        while _is_silent(port) and time.monotonic() < end:
            time.sleep(0.05)
        return nginx

    return start


def _is_silent(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
