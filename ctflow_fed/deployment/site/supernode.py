"""Flower's SuperNode in this process, behind the site's gate.

Flower is entered at six names of four of its modules, which `check_seam` and a test
look at: the connection to the server, its HTTP client, the command itself, the two
numbers that say how long it waits for a program, and what begins one. That is done in
a SuperExec of our own (`programs`), which shows a secret that is new at every start.
"""

import importlib
import inspect
import logging
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, NoReturn

import flwr
from flwr.supernode import fleet_http_connection
from flwr.supernode.cli.flower_supernode import flower_supernode

from ctflow_fed.deployment.environment import flower_environment
from ctflow_fed.deployment.site.connection import GatedConnection
from ctflow_fed.deployment.site.exchange import FLOWER, Flower
from ctflow_fed.deployment.site.patient_client import PatientClient, end_process
from ctflow_fed.deployment.site.programs import EXECUTOR, command, superexec
from ctflow_fed.deployment.site.site import Site
from ctflow_fed.errors import MismatchError
from ctflow_fed.files import write_private

__all__ = ["check_seam", "run_supernode", "wait_for_programs"]

internal: Any = importlib.import_module("flwr.supernode.start_client_internal")
tasks: Any = importlib.import_module("flwr.supercore.corestate.in_memory_corestate")
CONNECT = "http_request_response"
CLIENT = "FleetHttpClient"
INTERVAL, PATIENCE = "HEARTBEAT_DEFAULT_INTERVAL", "HEARTBEAT_PATIENCE"

START_SECONDS = 300
"""How long a program may take from its start to its first word.

Flower gives it 30 s, then starts another one and takes the order from the first, which
a host that is busy never gets beyond.
"""

SILENT_SECONDS = 60
"""How long a program that has begun may say nothing, as in Flower; it speaks by 25."""

SECRET = "superexec.secret"
STOP_SECONDS = 5.0
"""How long this process may outlive its SuperExec: both are told to stop at once."""

log = logging.getLogger(__name__)


def check_seam() -> None:
    """Refuse a Flower in which the gate is not known to stand in every way."""
    if not flwr.__version__.startswith(FLOWER):
        raise MismatchError(
            f"expected Flower {' or '.join(f'{each}x' for each in FLOWER)}, got "
            "another; install the version that requirements.lock names"
        )
    source = inspect.getsource(internal)
    entered = (
        (fleet_http_connection, CLIENT),
        (tasks, INTERVAL),
        (tasks, PATIENCE),
        (superexec, EXECUTOR),
    )
    knows = all(hasattr(module, name) for module, name in entered)
    if source.count(CONNECT) != 2 or not knows:
        raise MismatchError(
            "Flower reaches its server in another way than the gate knows; install "
            "the version that requirements.lock names"
        )


def wait_for_programs() -> None:
    """Let Flower in this process wait longer for a program that starts.

    It waits one interval for the first word, and as many as its patience for others.
    """
    setattr(tasks, INTERVAL, START_SECONDS)
    setattr(tasks, PATIENCE, SILENT_SECONDS / START_SECONDS)


def run_supernode(site: Site, port: int) -> NoReturn:
    """Run the SuperNode of a site until a signal; any other end is exit code 1.

    ``port`` is that of the SuperNode's own API on loopback.
    """
    check_seam()
    connect = getattr(internal, CONNECT)
    # Not before: by now the port is this process's and not somebody else's.
    start_programs = cache(partial(_start_programs, site.kit / SECRET, port))
    write_private(site.kit / SECRET, secrets.token_hex(32).encode())

    @contextmanager
    def gated(*words: Any) -> Iterator[Flower]:  # noqa: ANN401  # as Flower calls it
        start_programs()
        with connect(*words) as functions:
            yield GatedConnection(Flower(*functions), site).functions()

    setattr(internal, CONNECT, gated)
    setattr(fleet_http_connection, CLIENT, PatientClient)
    wait_for_programs()
    threading.excepthook = _end_with_thread
    os.environ.update(flower_environment(site.kit))
    os.environ.update(_gpu(site.policy.gpu_share))
    os.chdir(site.kit)
    sys.argv = ["flower-supernode", *_words(site, port)]
    flower_supernode()
    end_process("the SuperNode has lost its server")


def _start_programs(secret: Path, port: int) -> None:
    """Start the SuperExec, and end with it."""
    started = subprocess.Popen(command(port, secret, os.getpid()))

    def watch() -> None:
        started.wait()
        time.sleep(STOP_SECONDS)
        end_process("the site's SuperExec has ended")

    threading.Thread(target=watch, daemon=True).start()


def _words(site: Site, port: int) -> list[str]:
    return [
        *("--superlink", site.address, "--root-certificates", "ca.crt"),
        *("--isolation", "process", "--superexec-auth-secret-file", SECRET),
        *("--auth-supernode-private-key", "site.key"),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--node-config", _node_config(site)),
    ]


def _node_config(site: Site) -> str:
    values = {"site": site.name, "store": site.store, "state": site.state}
    return " ".join(f'{key}="{value}"' for key, value in values.items())


def _gpu(share: float) -> dict[str, str]:
    """Return the environment in which torch takes so much of a GPU's memory."""
    if share == 0:
        return {"CUDA_VISIBLE_DEVICES": ""}
    if share == 1:
        return {}
    return {"PYTORCH_CUDA_ALLOC_CONF": f"per_process_memory_fraction:{share:g}"}


def _end_with_thread(what: threading.ExceptHookArgs) -> None:
    end_process(
        f"a thread of the SuperNode ended with an unexpected {what.exc_type.__name__}"
    )
