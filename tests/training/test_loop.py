import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from ctflow_fed.cli import cli
from ctflow_fed.ct.store import LatentStore
from ctflow_fed.errors import MismatchError, StoreError
from ctflow_fed.model import FMvTConfig, fresh_network, load_package, save_package
from ctflow_fed.training import TrainSettings, describe, fit, loop, train
from ctflow_fed.training.batch import DRAWS
from ctflow_fed.training.prefetch import drawn_ahead
from ctflow_fed.training.step import batch_loss, step_generator

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


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (TrainSettings(batch_clips=2), (1.3898382, 2.7567241, 0.8706198)),
        (TrainSettings.ctflow(batch_clips=2), (2.2365093, 3.4913411, 0.9892098)),
    ],
)
def test_the_first_losses_are_what_they_always_were(
    haar_store: Path, settings: TrainSettings, expected: tuple[float, ...]
):
    network = fresh_network(FMvTConfig(layers=1, features=32, heads=2), seed=0)
    result = fit(network, LatentStore.open(haar_store), settings, steps=3, seed=0)

    assert result.losses == pytest.approx(expected, rel=1e-4)


def test_batches_drawn_ahead_are_those_drawn_in_line(haar_store: Path):
    store = LatentStore.open(haar_store)

    def generator_of(step: int) -> torch.Generator:
        return step_generator(0, 0, "", step)

    ahead = list(drawn_ahead(store, SETTINGS, range(3, 6), generator_of))

    assert [drawn.step for drawn in ahead] == [3, 4, 5]
    for drawn in ahead:
        generator = generator_of(drawn.step)
        batch = DRAWS["known"](store, SETTINGS, generator)
        assert torch.equal(drawn.batch.data, batch.data)
        assert torch.equal(drawn.batch.conditions.context, batch.conditions.context)
        assert torch.equal(drawn.generator.get_state(), generator.get_state())


def test_an_error_of_a_batch_that_is_drawn_ahead_surfaces(
    haar_store: Path, tmp_path: Path
):
    shutil.copytree(haar_store, tmp_path / "site")
    for study in (tmp_path / "site" / "studies").iterdir():
        study.write_bytes(b"damaged")

    with pytest.raises(StoreError, match="not the one"):
        _train(tmp_path / "site", tmp_path / "run", steps=3)


@pytest.mark.parametrize("method", ["known", "ctflow"])
def test_checkpointing_changes_no_gradient(haar_store: Path, method: str):
    store = LatentStore.open(haar_store)
    settings = TrainSettings(batch_clips=1, method=method)
    gradients = []
    for checkpointing in (False, True):
        network = fresh_network(FMvTConfig(layers=2, features=16, heads=2), seed=0)
        network.checkpointing = checkpointing
        generator = step_generator(0, 0, "", 0)
        batch = DRAWS[method](store, settings, generator)
        weights = store.channel_weights
        batch_loss(
            network.train(), batch, weights, settings, generator
        ).sum().backward()
        reached = (value.grad for value in network.parameters())
        gradients.append([value for value in reached if value is not None])

    assert all(map(torch.equal, *gradients))


def test_checkpointing_gives_the_same_weights(haar_store: Path):
    store = LatentStore.open(haar_store)
    ends = []
    for checkpointing in (False, True):
        network = fresh_network(SMALL, seed=0)
        settings = replace(SETTINGS, checkpointing=checkpointing)
        fit(network, store, settings, steps=2, seed=0)
        ends.append(list(network.parameters()))
        assert network.checkpointing is checkpointing

    assert all(map(torch.equal, *ends))


def test_a_released_model_goes_on_with_our_method(haar_store: Path, tmp_path: Path):
    store = LatentStore.open(haar_store)
    released = fresh_network(replace(SMALL, released=True), seed=0)
    provenance = describe(store, steps=0, seed=0, method="ctflow")
    save_package(tmp_path / "base", released, replace(provenance, codec_id=""))
    options = ["--init", str(tmp_path / "base"), "--batch-clips", "1"]
    command = ["train", str(haar_store), "--out", str(tmp_path / "run"), *options]

    for steps in ("1", "2"):  # the second goes on
        result = CliRunner().invoke(cli, [*command, "--steps", steps])
        assert result.exit_code == 0, result.exception

    package = load_package(tmp_path / "run" / "model")
    assert package.provenance.method == "known"
    assert package.network.config.released
    assert package.network.frame_embedder.geometry.weight.abs().max() > 0


def test_a_run_of_the_paper_s_method_goes_on(haar_store: Path, tmp_path: Path):
    def run(out: str, steps: str) -> str:
        place = ["--out", str(tmp_path / out), "--steps", steps, "--preset", "nano"]
        options = ["--method", "ctflow", "--batch-clips", "1", "--checkpointing"]
        result = CliRunner().invoke(cli, ["train", str(haar_store), *place, *options])
        assert result.exit_code == 0, result.exception
        return load_package(tmp_path / out / "model").digest

    whole = run("whole", "3")
    run("parts", "1")

    assert run("parts", "3") == whole
    package = load_package(tmp_path / "parts" / "model")
    assert package.provenance.method == "ctflow"


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
