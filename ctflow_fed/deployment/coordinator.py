"""All that runs at the coordinator, from a provisioned folder: started, stopped as one.

The SuperLink, on loopback and in process isolation; the SuperExec, which starts the
ServerApp of a job; and nginx, which alone is open to the outside. What they say goes
where this process writes. They hold the folder's lock as well, so that nobody starts a
second set while one of them is left, and end with this process even where it is killed.
nginx remembers nothing and is started again when
it ends; without one of the others all end. Sites that are issued anew or revoked are
taken up as they are.
"""

import json
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from ctflow_fed.deployment.certificates import is_current
from ctflow_fed.deployment.environment import flower_environment
from ctflow_fed.deployment.membership import Membership
from ctflow_fed.deployment.proxy import admit, nginx_user, ports_in, turn_over
from ctflow_fed.errors import (
    IncompleteError,
    MismatchError,
    MissingExtraError,
    PackageError,
    SettingsError,
)
from ctflow_fed.files import write_private, write_text
from ctflow_fed.locks import locked

__all__ = ["nginx_command", "serve"]

log = logging.getLogger(__name__)

SECRET = "superexec.secret"
RUNS_ALREADY = "the server of this folder runs already; stop it first"
START_SECONDS = 120.0
STOP_SECONDS = 15.0
POLL_SECONDS = 0.3

SUPERLINK = f"""\
flower-superlink --host 127.0.0.1 --database :flwr-in-memory: --isolation process
--superexec-auth-secret-file {SECRET} --enable-supernode-auth
--disable-runtime-dependency-installation --ssl-ca-certfile ca.crt
--ssl-certfile server.crt --ssl-keyfile server.key --port"""
SUPEREXEC = f"""\
flower-superexec --root-certificates ca.crt --superexec-auth-secret-file {SECRET}
--runtime-api-address"""
NGINX = "nginx"
BEREFT = {NGINX: signal.SIGTERM}
"""What a part gets when this process has been killed; where it is not named, SIGKILL.

nginx takes its workers along.
"""

LEFT_SECONDS = 5.0
"""How long the parts of a server that was killed take to end, at most."""

Daemons = dict[str, "subprocess.Popen[bytes]"]


def serve(folder: Path, on_start: Callable[[tuple[str, ...]], None]) -> None:
    """Run the server of a consortium's folder until it is told to stop by a signal.

    ``on_start`` hears the sites whose keys are registered, once all of it runs. Raises
    ``IncompleteError`` when a part but nginx ends by itself; all others are stopped.
    """
    server = folder.resolve() / "server"
    _check_programs()
    _check_folder(server)
    with (
        locked(server / "lock", RUNS_ALREADY, LEFT_SECONDS) as lock,
        _stopped_by_signals(),
        _daemons() as daemons,
    ):
        outside, inside = ports_in((server / "nginx.conf").read_text("utf-8"))
        environment = _prepare(server, inside)
        shutil.rmtree(server / "shards", ignore_errors=True)
        membership = Membership(server, environment)

        def start(name: str, command: Sequence[str]) -> None:
            daemons[name] = subprocess.Popen(
                [*_dying_with_us(name), *command],
                cwd=server,
                env=environment,
                pass_fds=(lock.fileno(),),
                start_new_session=True,
            )

        start("the SuperLink", f"{SUPERLINK} {inside}".split())
        _wait_for(inside, daemons)
        membership.follow()
        admit(server)
        start("the SuperExec", f"{SUPEREXEC} 127.0.0.1:{inside}".split())
        start(NGINX, nginx_command())
        _wait_for(outside, daemons)
        on_start(membership.sites)
        while True:
            if daemons[NGINX].poll() is not None:
                log.warning("nginx ended by itself and is started again")
                _signal_all(daemons[NGINX], signal.SIGKILL)  # those that it has left
                start(NGINX, nginx_command())
                _wait_for(outside, daemons)
            _check_alive(daemons)
            if membership.follow():
                admit(server)
                daemons[NGINX].send_signal(signal.SIGHUP)
            if turn_over(server):
                daemons[NGINX].send_signal(signal.SIGUSR1)
            time.sleep(POLL_SECONDS)


def nginx_command() -> list[str]:
    """Return how nginx is started in a server's folder."""
    command, user = [NGINX, "-e", "stderr", "-p", ".", "-c", "nginx.conf"], nginx_user()
    return [*command, *(["-g", f"user {user.pw_name};"] if user else [])]


def _dying_with_us(name: str) -> list[str]:
    """Return words before the command of a part by which Linux ends it with us."""
    if shutil.which("setpriv") is None:  # of util-linux
        return []
    number = BEREFT.get(name, signal.SIGKILL)
    return ["setpriv", "--pdeathsig", number.name.removeprefix("SIG"), "--"]


def _check_programs() -> None:
    path = flower_environment(Path())["PATH"]
    if shutil.which("flower-superlink", path=path) is None:
        raise MissingExtraError("flwr", "federation")
    if shutil.which("nginx", path=path) is None:
        raise SettingsError(
            "expected nginx as the reverse proxy, found none; install it, "
            "nginx-light in Debian"
        )


def _check_folder(server: Path) -> None:
    """Refuse a folder that was not provisioned, or a clock that is wrong by it."""
    names = ("ca.crt", "server.crt", "server.key", "nginx.conf")
    if not all((server / name).is_file() for name in names):
        raise PackageError(
            "expected the folder of a consortium with the server's certificate in it; "
            "make it with: ctflow federation provision"
        )
    if not is_current((server / "server.crt").read_bytes()):
        raise MismatchError(
            "the server's certificate is not valid at the time that this host's clock "
            "tells; set the clock with NTP, or provision again"
        )


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """End the work within when Ctrl-C or SIGTERM comes, as if it was done."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _daemons() -> Iterator[Daemons]:
    """Stop all that was started within, each with the processes that it has started."""
    daemons: Daemons = {}
    try:
        yield daemons
    finally:
        signals = {signal.SIGINT, signal.SIGTERM}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        for daemon in daemons.values():
            _signal_all(daemon, signal.SIGTERM)
        end = time.monotonic() + STOP_SECONDS
        for daemon in daemons.values():
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(max(0.0, end - time.monotonic()))
            _signal_all(daemon, signal.SIGKILL)
            daemon.wait()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _signal_all(daemon: "subprocess.Popen[bytes]", number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(daemon.pid, number)


def _prepare(server: Path, port: int) -> dict[str, str]:
    """Write a new secret and the connection for `flwr`; return the environment."""
    write_private(server / SECRET, secrets.token_hex(32).encode())
    authority = json.dumps(str(server / "ca.crt"), ensure_ascii=False)
    connection = (
        '[superlink]\ndefault = "fed"\n[superlink.fed]\n'
        f'address = "127.0.0.1:{port}"\nroot-certificates = {authority}\n'
    )
    write_text(server / "flower" / "config.toml", connection)
    return flower_environment(server)


def _wait_for(port: int, daemons: Daemons) -> None:
    end = time.monotonic() + START_SECONDS
    while not _answers(port):
        _check_alive(daemons)
        if time.monotonic() > end:
            raise IncompleteError(
                f"nothing listens on port {port} after {START_SECONDS:g} s; "
                "what was said last tells why"
            )
        time.sleep(POLL_SECONDS)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _check_alive(daemons: Daemons) -> None:
    for name, daemon in daemons.items():
        if daemon.poll() is not None:
            raise IncompleteError(
                f"{name} ended by itself and all else was stopped; what it said last "
                "tells why"
            )
