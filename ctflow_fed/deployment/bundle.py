"""The two programs of a federation, `server` and `client`, and the bundle they make.

The bundle of a version is the same for every job, byte for byte: what a job chooses
goes beside it. So a site approves it once, by its digest.
"""

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from ctflow_fed import __version__
from ctflow_fed.federation import FederationSettings

__all__ = ["build_bundle", "programs_folder", "write_app"]

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


def programs_folder() -> Path:
    """Return the folder of an installed wheel that has them, or the checkout."""
    here = Path(__file__).resolve()
    bundled = here.parent / "programs"
    return bundled if bundled.is_dir() else here.parents[2]


def write_app(folder: Path, programs: Path) -> Path:
    """Write the two programs as an app of Flower into a folder; return the app.

    Its config has every key of a job with an empty value, which `flwr run` overrides.
    """
    app = folder / "ctflow-fed"
    for name in ("server", "client"):
        shutil.copytree(programs / name, app / name)
    config = FederationSettings(out="job", sites=("site",)).to_run_config()
    lines = [f"{key} = {json.dumps(type(config[key])())}\n" for key in config]
    text = APP.format(version=__version__) + "".join(lines)
    (app / "pyproject.toml").write_text(text, "utf-8")
    return app


def build_bundle(programs: Path) -> bytes:
    """Return the bundle that `flwr run` would send for these programs."""
    from flwr.cli.build import build_fab_from_disk

    with TemporaryDirectory(prefix="ctflow-") as temporary:
        return build_fab_from_disk(write_app(Path(temporary), programs))
