"""Sites on disk, and a command line as a user starts it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from ctflow_fed.deployment.consortium import Consortium
from ctflow_fed.deployment.coordinator import nginx_command
from ctflow_fed.deployment.provision import provision
from ctflow_fed.deployment.proxy import nginx_config

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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """A function that returns a port on which nothing listens."""
    return _free_port


class Server:
    """`ctflow federation server` for a new consortium, on ports of its own.

    ``reached_at`` is the port that the kits name, the server's own if there is none.
    """

    def __init__(
        self, root: Path, revoke: Iterable[str] = (), reached_at: int = 0
    ) -> None:
        self.root, self.folder, self.log = root, root / "lung", root / "log"
        self.outside, self.inside = _free_port(), _free_port()
        self.consortium = Consortium(
            "lung", "localhost", reached_at or self.outside, ("a", "b")
        )
        provision(self.consortium, self.folder, revoke=tuple(revoke))
        config = nginx_config(self.outside, self.inside)
        (self.folder / "server" / "nginx.conf").write_text(config)
        self.environment = {**ENVIRONMENT, "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2"}
        self.sites: dict[str, subprocess.Popen[bytes]] = {}
        self.ports: dict[str, int] = {}
        self.start()

    def start(self) -> None:
        """Start the server, and wait until all of it is up."""
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                ["ctflow", "federation", "server", str(self.folder)],
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        self.until(lambda: "the server is up" in self.said() or not self.runs())
        assert self.runs(), self.said()

    def stop(self) -> int:
        """Stop the sites, then the server; return its exit code."""
        for process in self.sites.values():
            process.terminate()
            process.wait(timeout=30)
        self.process.terminate()
        return self.process.wait(timeout=30)

    def start_site(self, site: str, store: Path) -> None:
        """Start a site with the start.sh of its kit, as a service manager does."""
        kit = self.root / site
        if not kit.exists():
            self.unpack(site)
        self.ports.setdefault(site, _free_port())
        words = [str(store), "--port", str(self.ports[site])]
        with (self.root / f"{site}.log").open("a") as log:
            self.sites[site] = subprocess.Popen(
                [str(kit / "start.sh"), *words],
                env=self.environment,
                stdout=log,
                stderr=log,
            )

    def unpack(self, site: str) -> None:
        """Unpack the kit of a site, allow a small store, approve the programs."""
        with tarfile.open(self.folder / "kits" / f"{site}.tar.gz") as kit:
            kit.extractall(self.root, filter="data")
        allowed = self.root / site / "site.toml"
        few = allowed.read_text().replace("minimum_studies = 5", "minimum_studies = 1")
        allowed.write_text(few)
        subprocess.run(
            ["ctflow", "federation", "site", "approve", "--kit", str(self.root / site)],
            env=self.environment,
            check=True,
            timeout=120,
        )

    def submit(self, out: Path, options: str) -> None:
        """Submit a job of the smallest size."""
        command = ["ctflow", "federation", "run", "--server", str(self.folder)]
        words = f"--preset nano --batch-clips 2 {options} --out {out}"
        subprocess.run(
            [*command, *words.split()], env=self.environment, check=True, timeout=120
        )

    def until(self, done: Callable[[], object]) -> None:
        """Wait until something is done."""
        end = time.monotonic() + 300
        while not done():
            assert time.monotonic() < end, self.said()[-4000:]
            time.sleep(0.1)

    def pids(self, program: str, port: int) -> list[int]:
        """Return the processes of a program of Flower that speak with a port."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().decode().split("\0")
                name = path.with_name("comm").read_text().strip()
            except OSError:
                continue
            is_it = program in (name, *(Path(word).name for word in words[:4]))
            if is_it and any(word.endswith(str(port)) for word in words):
                found.append(int(path.parent.name))
        return found

    def said(self) -> str:
        """Return what the server has said since it was started last."""
        return self.log.read_text()

    def runs(self) -> bool:
        """Tell whether the server runs."""
        return self.process.poll() is None

    def is_all_gone(self) -> bool:
        """Tell whether nothing listens on its ports."""
        return _is_silent(self.outside) and _is_silent(self.inside)


@pytest.fixture(scope="session")
def start_server() -> type[Server]:
    """The class: a real server, and its sites run from their kits."""
    return Server


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
