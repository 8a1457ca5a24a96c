"""Giving a job to a server that runs: `flwr run` with our two programs, on its host."""

import json
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from ctflow_fed import __version__
from ctflow_fed.deployment.bundle import programs_folder
from ctflow_fed.deployment.environment import flower_environment
from ctflow_fed.errors import IncompleteError
from ctflow_fed.federation import FederationSettings

__all__ = ["submit"]

APP = """\
[project]
name = "ctflow-fed"
version = "{version}"
description = "One generator, taught at several sites"
license = "Apache-2.0"
[tool.flwr.app]
publisher = "ctflow"
[tool.flwr.app.components]
serverapp = "server.app:app"
clientapp = "client.app:app"
[tool.flwr.app.config]
"""


def submit(folder: Path, settings: FederationSettings) -> None:
    """Submit a job to the server of a consortium's folder, which must be running."""
    with TemporaryDirectory(prefix="ctflow-") as temporary:
        app = Path(temporary) / "ctflow-fed"
        for name in ("server", "client"):
            shutil.copytree(programs_folder() / name, app / name)
        config = settings.to_run_config()
        lines = [
            f"{key} = {json.dumps(config[key], ensure_ascii=False)}\n" for key in config
        ]
        text = APP.format(version=__version__) + "".join(lines)
        (app / "pyproject.toml").write_text(text, "utf-8")
        done = subprocess.run(
            ["flwr", "run", str(app), "fed"],
            env=flower_environment(folder.resolve() / "server"),
            capture_output=True,
            check=False,
        )
    if done.returncode != 0:
        raise IncompleteError(
            "the server of this folder took no job; start it with: "
            "ctflow federation server, or look at what it said last"
        )
