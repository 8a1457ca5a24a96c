"""Giving a job to a server that runs: `flwr run` with our two programs, on its host."""

import json
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from ctflow_fed.deployment.bundle import programs_folder, write_app
from ctflow_fed.deployment.environment import flower_environment
from ctflow_fed.errors import IncompleteError
from ctflow_fed.federation import FederationSettings

__all__ = ["submit"]


def submit(folder: Path, settings: FederationSettings) -> None:
    """Submit a job to the server of a consortium's folder, which must be running."""
    with TemporaryDirectory(prefix="ctflow-") as temporary:
        app = write_app(Path(temporary), programs_folder())
        config, path = settings.to_run_config(), Path(temporary) / "job.toml"
        lines = [
            f"{key} = {json.dumps(config[key], ensure_ascii=False)}\n" for key in config
        ]
        path.write_text("".join(lines), "utf-8")
        done = subprocess.run(
            ["flwr", "run", str(app), "fed", "--run-config", str(path)],
            env=flower_environment(folder.resolve() / "server"),
            capture_output=True,
            check=False,
        )
    if done.returncode != 0:
        raise IncompleteError(
            "the server of this folder took no job; start it with: "
            "ctflow federation server, or look at what it said last"
        )
