import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CTFLOW = "from ctflow_fed.cli import main; main()"
PATIENCE = 600  # seconds

pytestmark = pytest.mark.slow


def start(*arguments: object) -> subprocess.Popen:
    """Start a program of this checkout."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(program: subprocess.Popen) -> str:
    """Wait for a program that must succeed, and return what it said."""
    said = program.communicate(timeout=PATIENCE)[0]
    assert program.returncode == 0, said
    return said


def test_the_program_does_a_job_and_status_counts_it(tmp_path, model):
    (tmp_path / "job.toml").write_text(
        "[plan]\ntarget = {Emphysema = 2}\nslices = 8\n"
        f"[generate]\nmodel = '{model}'\nout = 'set'\nworkers = 0\nsteps = 1\n"
    )
    words = ("-c", CTFLOW, "augment", "status", tmp_path / "set", "--json")

    said = finish(start("-m", "augment", tmp_path / "job.toml"))
    status = json.loads(finish(start(*words)))

    assert "2 of 2 volumes" in said
    assert status["done"] == status["planned"] == status["positives"]["Emphysema"] == 2
    assert status["runs"] == 0


@pytest.mark.ray
def test_processes_may_be_killed_again_and_again_and_no_volume_is_lost_or_doubled(
    tmp_path,
):
    chaos = ROOT / "benchmarks" / "augmentation_chaos.py"

    # With this seed a worker is killed, then the driver, then two workers.
    said = finish(
        start(chaos, "--requests", 20, "--kills", 4, "--seed", 3, "--out", tmp_path)
    )

    assert re.search(r"[1-9] drivers and [1-9] workers were killed", said)
    assert "20 of 20 volumes; bit-identical: True" in said
