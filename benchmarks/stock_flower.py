"""A round of Flower as it comes: FedAvg with one record of all weights, no TLS."""

import resource
import shutil
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

from processes import ENVIRONMENT, MemoryWatch, free_ports, process, until

from ctflow_fed.deployment.environment import flower_environment

__all__ = ["stock_round"]

LIMIT = 10 * 2**30  # bytes of address space a process, to spare the machine
SECONDS = 900.0
PROJECT = """\
[project]
name = "stock"
version = "0.1.0"
description = "One round of FedAvg"
license = "Apache-2.0"
[tool.flwr.app]
publisher = "ctflow"
[tool.flwr.app.components]
serverapp = "stock.server:app"
clientapp = "stock.client:app"
[tool.flwr.app.config]
"""
SERVER = """\
import time
from pathlib import Path
import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
app = ServerApp()
@app.main()
def main(grid, context):
    strategy = FedAvg(
        fraction_evaluate=0.0, min_train_nodes={sites}, min_available_nodes={sites}
    )
    arrays = ArrayRecord([np.ones({values}, np.float32)])
    while len(list(grid.get_node_ids())) < {sites}:
        time.sleep(0.5)
    began = time.monotonic()
    result = strategy.start(grid, arrays, num_rounds=1)
    seconds = time.monotonic() - began
    done = str(seconds) if result.arrays is not None else "failed"
    Path({path!r}).write_text(done)
"""
CLIENT = """\
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
app = ClientApp()
@app.train()
def train(message, context):
    arrays = [array + 1 for array in message.content["arrays"].to_numpy_ndarrays()]
    metrics = MetricRecord({"num-examples": 1})
    content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics})
    return Message(content, reply_to=message)
"""


def stock_round(folder: Path, megabytes: int, sites: int) -> dict[str, object]:
    """Return the seconds and MB of a round, or that it failed."""
    shutil.rmtree(folder, ignore_errors=True)
    app, done = folder / "stock" / "stock", folder / "done"
    app.mkdir(parents=True)
    (app.parent / "pyproject.toml").write_text(PROJECT)
    (app / "__init__.py").write_text("")
    values = megabytes * 10**6 // 4
    server = SERVER.format(sites=sites, values=values, path=str(done))
    (app / "server.py").write_text(server)
    (app / "client.py").write_text(CLIENT)
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, before[1]))
    try:
        return _played(folder, app.parent, sites, done)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        shutil.rmtree(folder)


def _played(folder: Path, app: Path, sites: int, done: Path) -> dict[str, object]:
    inside, *own = free_ports(1 + sites)
    home = folder / "flower"
    home.mkdir()
    (home / "config.toml").write_text(
        '[superlink]\ndefault = "fed"\n[superlink.fed]\n'
        f'address = "127.0.0.1:{inside}"\ninsecure = true\n'
    )
    ENVIRONMENT.update(flower_environment(folder))
    link = "flower-superlink --insecure --host 127.0.0.1 --database :flwr-in-memory:"
    node = f"flower-supernode --insecure --superlink 127.0.0.1:{inside}"
    with ExitStack() as stack:
        words = [*link.split(), "--port", str(inside)]
        words.append("--disable-runtime-dependency-installation")
        log = folder / "server.log"
        server = stack.enter_context(process(words, log))
        until(lambda: "Uvicorn running" in log.read_text(), server, SECONDS)
        roots = {"server": server.pid}
        for number, port in enumerate(own):
            words = [*node.split(), "--host", "127.0.0.1", "--port", str(port)]
            site = process(words, folder / f"site{number}.log")
            roots[f"site{number}"] = stack.enter_context(site).pid
        with MemoryWatch(roots) as watch:
            subprocess.run(
                ["flwr", "run", str(app), "fed"], env=ENVIRONMENT, check=True
            )
            end = time.monotonic() + SECONDS
            while not done.exists() and time.monotonic() < end:
                time.sleep(0.5)
    said = done.read_text() if done.exists() else "failed"
    seconds = None if said == "failed" else round(float(said), 1)
    return {
        "round_seconds": seconds,
        "server_mb": round(watch.totals["server"]),
        "site_mb": round(watch.totals["site0"]),
        "all_mb": round(sum(watch.totals.values())),
    }
