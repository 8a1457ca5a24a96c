import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from ctflow_fed.cli.demo import command
from ctflow_fed.demo import Places
from ctflow_fed.evaluation import ARMS

# Flower warns when it is imported, so it runs in a process of its own.
MINIATURE = """
import sys
from pathlib import Path

from ctflow_fed.demo import DemoSettings, run_demo
from ctflow_fed.evaluation import UtilitySettings

if __name__ == "__main__":
    utility = UtilitySettings(
        shape=(32, 32, 16), steps=2, batch=2, repeats=1, least_cases=1, draws=50
    )
    settings = DemoSettings(
        seed=int(sys.argv[2]),
        studies=2,
        real=4,
        tested=16,
        slices=16,
        image_size=32,
        init="",
        preset="nano",
        rounds=2,
        steps=2,
        batch_clips=2,
        synthetic=2,
        sample_steps=1,
        utility=utility,
    )
    run_demo(Path(sys.argv[1]), settings, lambda line: print(line, flush=True))
"""


def demo(folder, seed=0):
    result = subprocess.run(
        [sys.executable, "-c", MINIATURE, str(folder), str(seed)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return result.returncode, result.stdout.splitlines(), result.stderr


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.flower
def test_the_demo_runs_from_scans_to_its_page_and_goes_on_where_it_was(tmp_path):
    code, _, error = demo(tmp_path)

    assert code == 0, error
    places = Places(tmp_path)
    summary = json.loads(places.summary.read_text())
    assert summary["sites"] == 3
    assert summary["rounds"] == summary["synthetic_volumes"] == 2
    assert summary["loss_first"] > 0
    assert summary["loss_last"] > 0
    assert set(summary["utility"]) == set(ARMS)
    assert all(0 <= each <= 1 for each in summary["utility"].values())
    assert summary["seconds"] > 0
    assert summary["peak_rss_mb"] > 100
    page = places.page.read_text()
    assert "Three hospitals taught one" in page

    code, said, error = demo(tmp_path)

    assert code == 0, error
    assert len(said) == 5
    assert all("done before" in each for each in said)
    assert places.page.read_text() == page
    assert "other settings or another seed" in demo(tmp_path, seed=1)[2]


def test_the_command_says_what_it_does():
    result = CliRunner().invoke(command, ["--help"])

    assert result.exit_code == 0
    assert "three phantom hospitals" in result.output.lower()
