import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ctflow_fed.ct.store import LatentStore
from ctflow_fed.errors import MismatchError, StoreError
from ctflow_fed.model import FMvTConfig, fresh_network, load_package
from ctflow_fed.training import TrainSettings, loop, train

SMALL = FMvTConfig(layers=1, features=16, heads=2)
SETTINGS = TrainSettings(batch_clips=1)


def _train(store: Path, out: Path, *, steps: int, seed: int = 0) -> str:
    model = train(
        fresh_network(SMALL, seed=0),
        LatentStore.open(store),
        out,
        SETTINGS,
        steps=steps,
        seed=seed,
    )
    return load_package(model).digest


def _steps(out: Path) -> list[int]:
    lines = (out / "train.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def test_a_run_in_two_parts_gives_the_weights_of_one(haar_store: Path, tmp_path: Path):
    whole = _train(haar_store, tmp_path / "whole", steps=6)
    _train(haar_store, tmp_path / "parts", steps=2)
    resumed = _train(haar_store, tmp_path / "parts", steps=6)

    assert resumed == whole
    assert _steps(tmp_path / "parts") == [1, 2, 3, 4, 5, 6]


def test_steps_after_the_checkpoint_are_logged_once(haar_store: Path, tmp_path: Path):
    out = tmp_path / "run"
    _train(haar_store, out, steps=3)
    with (out / "train.jsonl").open("a") as lines:  # as a kill between saves leaves it
        lines.write('{"step": 4, "loss": 1.0}\n{"step": 5, "lo')

    _train(haar_store, out, steps=6)

    assert _steps(out) == [1, 2, 3, 4, 5, 6]


def test_a_checkpoint_of_another_run_is_refused(haar_store: Path, tmp_path: Path):
    _train(haar_store, tmp_path / "run", steps=2, seed=0)

    with pytest.raises(MismatchError, match="another"):
        _train(haar_store, tmp_path / "run", steps=4, seed=1)


def test_a_damaged_checkpoint_is_refused(haar_store: Path, tmp_path: Path):
    _train(haar_store, tmp_path / "run", steps=2)
    checkpoint = tmp_path / "run" / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])

    with pytest.raises(StoreError, match="damaged"):
        _train(haar_store, tmp_path / "run", steps=4)


def test_fewer_steps_than_are_done_is_refused(haar_store: Path, tmp_path: Path):
    _train(haar_store, tmp_path / "run", steps=3)

    with pytest.raises(MismatchError, match="step 3"):
        _train(haar_store, tmp_path / "run", steps=2)


def test_a_model_of_another_codec_is_no_start(haar_store: Path, tmp_path: Path):
    _train(haar_store, tmp_path / "run", steps=1)
    package = load_package(tmp_path / "run" / "model")
    other = replace(package.provenance, codec_id="another")

    with pytest.raises(MismatchError, match="another codec"):
        train(
            package.network,
            LatentStore.open(haar_store),
            tmp_path / "next",
            SETTINGS,
            steps=1,
            seed=0,
            parent=package._replace(provenance=other),
        )


def test_the_package_holds_the_average_and_where_it_comes_from(
    haar_store: Path, tmp_path: Path
):
    _train(haar_store, tmp_path / "run", steps=2)
    package = load_package(tmp_path / "run" / "model")
    header = LatentStore.open(haar_store).header

    assert package.provenance.codec_id == header.codec_id
    assert package.provenance.latent_size == (8, 8)
    assert package.provenance.spacing == (5.0, 8.0, 8.0)
    assert package.provenance.steps == 2


@pytest.mark.slow
def test_a_killed_command_repeated_gives_the_weights_of_an_unbroken_one(
    haar_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def command(out: str) -> list[str]:
        program = (
            "import sys; from ctflow_fed.training import loop; "
            "loop.CHECKPOINT_SECONDS = 0.2; "
            "from ctflow_fed.cli import main; main()"
        )
        options = ["--steps", "25", "--preset", "nano", "--batch-clips", "2"]
        arguments = ["train", str(haar_store), "--out", str(tmp_path / out), *options]
        return [sys.executable, "-c", program, *arguments]

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    subprocess.run(command("whole"), check=True, capture_output=True)
    broken = subprocess.Popen(command("broken"), stdout=subprocess.DEVNULL)
    log = tmp_path / "broken" / "train.jsonl"
    while broken.poll() is None and not log.exists():
        time.sleep(0.05)
    time.sleep(random.uniform(0.2, 1.5))  # any moment must do
    os.kill(broken.pid, signal.SIGKILL)
    broken.wait()
    subprocess.run(command("broken"), check=True, capture_output=True)

    whole, resumed = (
        load_package(tmp_path / name / "model").digest for name in ("whole", "broken")
    )
    assert resumed == whole
    assert _steps(tmp_path / "broken") == list(range(1, 26))
    assert loop.CHECKPOINT_SECONDS == 30
