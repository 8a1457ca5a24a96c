"""What travels to a hospital in Flower's app bundle, by a written list."""

import subprocess
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.flower


def test_the_bundle_carries_the_two_programs_and_nothing_else(tmp_path, environment):
    command = ["flwr", "build", "--app", str(ROOT)]
    environment["FLWR_HOME"] = str(tmp_path / "home")
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=60)

    (bundle,) = tmp_path.glob("*.fab")
    assert sorted(zipfile.ZipFile(bundle).namelist()) == [
        ".info/CONTENT",
        "client/__init__.py",
        "client/app.py",
        "pyproject.toml",
        "server/__init__.py",
        "server/app.py",
        "server/exchange.py",
        "server/inquiry.py",
        "server/rounds.py",
        "server/secure.py",
        "server/sites.py",
        "server/strategy.py",
    ]
