"""Flower's simulation runtime, with what it lacks: named sites, and an end on failure.

Flower gives a simulated SuperNode a number; here it gets the node config of a site. And
where Flower would wait, for a worker that died or for a runtime that has stopped, the
server is told. The two programs are imported by name.
"""

import importlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation
from flwr.superlink.grid import InMemoryGrid

from ctflow_fed.deployment.bundle import programs_folder
from ctflow_fed.deployment.cargo import carrying
from ctflow_fed.deployment.secured import secured
from ctflow_fed.errors import CTFlowError, IncompleteError
from ctflow_fed.federation import ConfigValue
from ctflow_fed.machine import cores

__all__ = ["SiteClient", "simulate"]

SMALLEST_OBJECT_STORE = 80 * 2**20  # what Ray takes at least
UNKNOWN_ERROR = 0  # Flower's code where not the client but its process failed


def simulate(
    run_config: Mapping[str, ConfigValue], stores: Mapping[str, Path], payload: int
) -> None:
    """Run the server with a client for each store until the server is done.

    ``payload`` is the size of the weights in bytes. What a site keeps is in the folder
    ``sites/SITE`` of the job. An error of ours that the server
    raises is raised here; any other becomes an ``IncompleteError``.
    """
    _find_programs()
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    cpus = cores()
    workers = min(len(stores), cpus)
    threads = cpus // workers
    out = Path(str(run_config["out"])).resolve()
    stop = threading.Event()
    work = partial(
        run_simulation,
        server_app=_server(run_config, stop),
        client_app=SiteClient(stores, out, threads),
        num_supernodes=len(stores),
        backend_config={
            "init_args": _ray_settings(workers * threads, payload * len(stores)),
            "client_resources": {"num_cpus": threads, "num_gpus": 0.0},
        },
    )
    try:
        _run_aside(work)
    except CTFlowError:
        raise
    except Exception as error:
        raise IncompleteError(
            f"the local federation ended with an unexpected {type(error).__name__}; "
            "the same command goes on after the last finished round"
        ) from error
    finally:
        stop.set()


class SiteClient(ClientApp):
    """The site's ClientApp, called as the site that a simulated node stands for."""

    def __init__(self, stores: Mapping[str, Path], out: Path, threads: int) -> None:
        super().__init__()
        self._shards = out / "shards"
        self._nodes: list[dict[str, bool | float | int | str]] = [
            {
                "site": site,
                "store": str(path),
                "state": str(out / "sites" / site),
                "threads": threads,
            }
            for site, path in sorted(stores.items())
        ]

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer as a SuperNode with this site's node config would."""
        program: ClientApp = importlib.import_module("client.app").app
        number = int(context.node_config["partition-id"])
        context.node_config = {**context.node_config, **self._nodes[number]}
        return carrying(secured(program), self._shards)(message, context)


class _WatchedGrid(InMemoryGrid):
    """A grid that ends the server's wait when there is nothing to wait for."""

    def __init__(self, grid: InMemoryGrid, stop: threading.Event) -> None:
        self.__dict__.update(grid.__dict__)
        self._stop = stop

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return replies; a dead worker or a stopped runtime raises an error."""
        if self._stop.is_set():
            raise IncompleteError("the local federation was stopped")
        replies = list(super().pull_messages(message_ids))
        if any(
            each.has_error() and each.error.code == UNKNOWN_ERROR for each in replies
        ):
            raise IncompleteError(
                "a worker of the local federation ended before its answer, out of "
                "memory perhaps; the same command goes on after the last finished round"
            )
        return replies


def _server(run_config: Mapping[str, ConfigValue], stop: threading.Event) -> ServerApp:
    """Return the server's app, called with a run config as `flwr run` gives it."""
    program: ServerApp = importlib.import_module("server.app").app
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        if not isinstance(grid, InMemoryGrid):
            raise TypeError("Flower's simulation has another grid than 1.41 had")
        context.run_config = dict(run_config)
        program(_WatchedGrid(grid, stop), context)

    return app


def _ray_settings(cpus: int, payloads: int) -> dict[str, Any]:
    """Return how Ray starts: a cluster of its own, bounded, and silent.

    Every round holds the weights of each site twice: on the way there and back.
    """
    return {
        "address": "local",
        "num_cpus": cpus,
        "object_store_memory": max(SMALLEST_OBJECT_STORE, 3 * payloads),
        "include_dashboard": False,
        "log_to_driver": False,
        "logging_level": "CRITICAL",
    }


def _run_aside(work: Callable[[], None]) -> None:
    """Do the work in a thread, where Ray leaves this process's signals alone.

    Ctrl-C ends the process at once: an orderly end would wait for the clients, which
    may train for hours, and all that counts is in the job's folder. Ray follows.
    """
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(work)
        try:
            future.result()
        except KeyboardInterrupt:
            sys.stderr.write("stopped; the same command goes on from here\n")
            sys.stderr.flush()
            os._exit(130)


def _find_programs() -> None:
    """Make `server` and `client` importable, here and in Ray's workers."""
    root = str(programs_folder())
    if root not in sys.path:
        sys.path.insert(0, root)
