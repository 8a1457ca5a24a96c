"""The sites that a running SuperLink knows, which are those of the folder of keys."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

from ctflow_fed.deployment.registry import read_registry
from ctflow_fed.errors import IncompleteError
from ctflow_fed.files import write_json

__all__ = ["SITES", "Membership"]

SITES = "flower/sites.json"
"""The node of each site at the server that runs, or ran last."""


class Membership:
    """Registers the keys of a server's folder at its SuperLink, with `flwr`."""

    def __init__(self, server: Path, environment: Mapping[str, str]) -> None:
        self._server, self._environment = server, environment
        self._keys: dict[str, bytes] = {}
        self._nodes: dict[str, str] = {}

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that are registered."""
        return tuple(self._nodes)

    def follow(self) -> bool:
        """Register keys that are new, take back those that are gone; tell of changes.

        Raises ``IncompleteError`` where the SuperLink takes one not.
        """
        found = {site: k for k, site in read_registry(self._server / "nodes").items()}
        if found == self._keys:
            return False
        for site in sorted(self._keys):
            if found.get(site) != self._keys[site]:
                self._flwr(site, "unregister", self._nodes.pop(site), "fed")
        for site in sorted(found):
            if found[site] != self._keys.get(site):
                key = f"nodes/{site}.pub"
                told = self._flwr(site, "register", key, "fed", "--name", site)
                self._nodes[site] = str(told["node-id"])
        self._keys = found
        write_json(self._server / SITES, self._nodes)
        return True

    def _flwr(self, site: str, *words: str) -> dict[str, object]:
        done = subprocess.run(
            ["flwr", "supernode", *words, "--format", "json"],
            cwd=self._server,
            env=self._environment,
            stdout=subprocess.PIPE,
            check=False,
        )
        if done.returncode != 0:
            raise IncompleteError(
                f"the SuperLink did not {words[0]} the key of {site}; what was said "
                "last tells why"
            )
        told: dict[str, object] = json.loads(done.stdout)
        return told
