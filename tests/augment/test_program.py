import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ctflow_fed.augment import GenerateSettings, Plan, SynthStore, generate, plan

ROOT = Path(__file__).resolve().parents[2]
CTFLOW = "from ctflow_fed.cli import main; main()"
PATIENCE = 120  # seconds
SETTINGS = GenerateSettings(steps=20, solver="heun")

pytestmark = pytest.mark.slow


def start(*arguments: object) -> subprocess.Popen:
    """Start a program of this checkout."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(program: subprocess.Popen) -> str:
    """Wait for a program that must succeed, and return what it said."""
    said = program.communicate(timeout=PATIENCE)[0]
    assert program.returncode == 0, said
    return said


def wait_for_volumes(folder: Path, count: int) -> None:
    """Wait until so many sidecars are there."""
    until = time.monotonic() + PATIENCE
    while len(list(folder.glob("volumes/*.json"))) < count:
        assert time.monotonic() < until, "no volume was drawn in time"
        time.sleep(0.01)


def worker_processes(parent: int) -> list[int]:
    """Return the processes below ``parent`` that are drawing for Ray."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            title = (entry / "cmdline").read_bytes()
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue
        ours = f"CTFLOW_TEST={parent}".encode() in environment
        if ours and b"_Actor" in title:
            found.append(int(entry.name))
    return found


def digests(folder: Path) -> dict[str, str]:
    return {each.sample_id: each.sha256 for each in SynthStore(folder).records()}


@pytest.fixture(scope="module")
def dozen() -> Plan:
    return plan(target={"Emphysema": 8, "Lung nodule": 4}, slices=16)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, model, dozen) -> dict[str, str]:
    """The digests of the set that nobody disturbed."""
    out = tmp_path_factory.mktemp("unbroken")
    generate(dozen, model=model, out=out, workers=0, settings=SETTINGS)
    return digests(out)


@pytest.fixture
def command(tmp_path, model, dozen) -> tuple[object, ...]:
    """The arguments that draw the dozen with two workers into ``tmp_path / "set"``."""
    dozen.save(tmp_path / "plan.json")
    return (
        *("augment", "run", tmp_path / "plan.json", "--model", model),
        *("--out", tmp_path / "set", "--workers", 2, "--steps", 20, "--solver", "heun"),
    )


def test_the_program_draws_a_plan_and_status_counts_it(tmp_path, model):
    plan(target={"Emphysema": 2}, slices=8).save(tmp_path / "plan.json")
    out = tmp_path / "set"

    arguments = ("--model", model, "--out", out, "--workers", 0, "--steps", 1)
    said = finish(start("-m", "augment", tmp_path / "plan.json", *arguments))
    status = json.loads(finish(start("-c", CTFLOW, "augment", "status", out, "--json")))

    assert "2 of 2 volumes" in said
    assert status["done"] == status["planned"] == status["positives"]["Emphysema"] == 2


@pytest.mark.ray
def test_a_killed_run_goes_on_and_ends_as_if_undisturbed(tmp_path, command, unbroken):
    first = start("-c", CTFLOW, *command)
    wait_for_volumes(tmp_path / "set", 1)
    time.sleep(random.random())
    first.kill()
    first.communicate(timeout=PATIENCE)
    left = SynthStore(tmp_path / "set").status().done

    said = finish(start("-c", CTFLOW, *command))

    assert 0 < left <= 12
    assert "12 of 12 volumes" in said
    assert digests(tmp_path / "set") == unbroken
    names = sorted(path.name for path in (tmp_path / "set" / "volumes").iterdir())
    assert names == sorted(f"{i}.{end}" for i in unbroken for end in ("json", "nii.gz"))


@pytest.mark.ray
def test_a_run_survives_the_death_of_a_worker(tmp_path, command, unbroken, monkeypatch):
    mark = random.randrange(2**31)
    monkeypatch.setenv("CTFLOW_TEST", str(mark))
    program = start("-c", CTFLOW, *command)
    wait_for_volumes(tmp_path / "set", 1)

    os.kill(worker_processes(mark)[0], signal.SIGKILL)

    assert "12 of 12 volumes" in finish(program)
    assert digests(tmp_path / "set") == unbroken
