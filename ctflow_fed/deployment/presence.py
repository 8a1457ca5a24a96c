"""Which sites are connected to a server that runs, asked on its host."""

import json
import subprocess
from pathlib import Path

from ctflow_fed.deployment.environment import flower_environment
from ctflow_fed.deployment.membership import SITES
from ctflow_fed.errors import IncompleteError
from ctflow_fed.files import read_json

__all__ = ["sites_up"]


def sites_up(folder: Path) -> dict[str, bool]:
    """Return for each registered site of a consortium's folder whether it is up."""
    server = folder.resolve() / "server"
    done = subprocess.run(
        ["flwr", "supernode", "list", "fed", "--format", "json"],
        env=flower_environment(server),
        capture_output=True,
        check=False,
    )
    if done.returncode != 0 or not (server / SITES).exists():
        raise IncompleteError(
            "the server of this folder does not answer; start it with: "
            "ctflow federation server"
        )
    nodes = json.loads(done.stdout)["nodes"]
    online = {each["node-id"] for each in nodes if each["status"] == "online"}
    sites: dict[str, str] = read_json(server / SITES)
    return {site: node in online for site, node in sorted(sites.items())}
