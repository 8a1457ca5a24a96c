import math
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ctflow_fed.ct.store import LatentStore, StoreHeader
from ctflow_fed.errors import MismatchError, SettingsError, StoreError
from ctflow_fed.model import (
    FMvT,
    FMvTConfig,
    fresh_network,
    import_published,
    start_network,
)
from ctflow_fed.training import (
    TrainSettings,
    check_origin,
    describe,
    evaluate_loss,
    fit,
)
from ctflow_fed.training.settings import METHODS

SMALL = FMvTConfig(layers=1, features=32, heads=2)
SETTINGS = TrainSettings(
    batch_clips=2, max_frames=16, warmup_steps=2, learning_rate=1e-2
)


def _weights(network: FMvT) -> torch.Tensor:
    return torch.cat([value.detach().flatten() for value in network.parameters()])


@pytest.mark.parametrize("method", METHODS)
def test_training_lowers_the_loss(haar_store: Path, method: str):
    store = LatentStore.open(haar_store)
    network = fresh_network(SMALL, seed=0)
    before = evaluate_loss(network, store, seed=0, method=method)

    settings = TrainSettings(
        method=method, batch_clips=4, max_frames=16, learning_rate=1e-3
    )
    result = fit(network, store, settings, steps=150, seed=0)

    assert evaluate_loss(network, store, seed=0, method=method) < 0.9 * before
    assert statistics.mean(result.losses[-15:]) < statistics.mean(result.losses[:15])
    assert result.slices == 20 + 32 + 40


def test_a_few_steps_train_every_weight(haar_store: Path):
    network = fresh_network(SMALL, seed=0)
    before = {name: value.clone() for name, value in network.named_parameters()}

    # Silent reports, so that the null token is seen.
    settings = replace(SETTINGS, report_dropout=0.5, weight_decay=0.0)
    fit(network, LatentStore.open(haar_store), settings, steps=6, seed=0)

    still = [
        name
        for name, value in network.named_parameters()
        if torch.equal(value, before[name])
    ]
    assert still == []


def test_an_imported_network_is_trained_further_with_extensions_on(
    shared: Path, haar_store: Path, tmp_path: Path
):
    import_published(shared / "reference" / "ctflow_stdit_tiny", tmp_path / "model")
    network, parent = start_network("nano", tmp_path / "model", seed=0)
    store = LatentStore.open(haar_store)
    before = {name: value.clone() for name, value in network.named_parameters()}

    check_origin(parent.provenance, store.header)
    result = fit(network, store, TrainSettings(), steps=3, seed=0)

    def moved(part: str) -> bool:
        return any(
            not torch.equal(value, before[name])
            for name, value in network.named_parameters()
            if name.startswith(part)
        )

    assert all(math.isfinite(loss) for loss in result.losses)
    assert moved("blocks.0.attn.qkv")
    for part in ("geometry", "known", "level"):
        assert moved(f"frame_embedder.{part}")
    assert moved("report_pool")
    assert moved("refiner.leave")


@pytest.mark.parametrize("part", ["codec_id", "encoder_id"])
def test_a_model_of_another_codec_or_encoder_is_not_trained_further(
    haar_store: Path, part: str
):
    store = LatentStore.open(haar_store)
    own = describe(store, steps=0, seed=0)

    check_origin(own, store.header)
    check_origin(replace(own, **{part: ""}), store.header)  # bound to none
    with pytest.raises(MismatchError, match="another codec or report encoder"):
        check_origin(replace(own, **{part: "another"}), store.header)


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({}, True),
        ({"seed": 1}, False),
        ({"round_number": 1}, False),
        ({"site": "b"}, False),
    ],
)
def test_what_is_drawn_is_a_function_of_seed_round_site_and_step(
    haar_store: Path, changed: dict[str, int | str], same: bool
):
    store = LatentStore.open(haar_store)
    first, second = (fresh_network(SMALL, seed=0) for _ in range(2))
    known = {"seed": 0, "round_number": 0, "site": "a"}

    fit(first, store, SETTINGS, steps=2, **known)
    fit(second, store, SETTINGS, steps=2, **(known | changed))

    assert torch.equal(_weights(first), _weights(second)) is same


def test_fedprox_keeps_the_weights_near_where_they_began(haar_store: Path):
    store = LatentStore.open(haar_store)
    start = _weights(fresh_network(SMALL, seed=0))

    def moved(proximal: float) -> float:
        settings = replace(SETTINGS, learning_rate=1e-3, proximal=proximal)
        network = fresh_network(SMALL, seed=0)
        fit(network, store, settings, steps=10, seed=0)
        return (_weights(network) - start).norm().item()

    assert moved(100.0) < 0.8 * moved(0.0)


def test_an_evaluation_is_the_same_each_time(haar_store: Path):
    store = LatentStore.open(haar_store)
    network = fresh_network(SMALL, seed=0)

    losses = {evaluate_loss(network, store, seed=3) for _ in range(2)}

    assert len(losses) == 1


def test_an_empty_store_is_refused(tmp_path: Path):
    header = StoreHeader("codec", "encoder", 16, 8, 8)
    store = LatentStore.create(tmp_path / "site", header, torch.zeros(2, 16, 8, 8))

    with pytest.raises(StoreError, match="no study"):
        fit(fresh_network(SMALL, seed=0), store, SETTINGS, steps=1, seed=0)


def test_a_network_of_other_channels_is_refused(haar_store: Path):
    config = FMvTConfig(layers=1, features=32, heads=2, latent_channels=4)

    with pytest.raises(MismatchError, match="channels"):
        evaluate_loss(fresh_network(config, 0), LatentStore.open(haar_store), seed=0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_clips": 0},
        {"learning_rate": -1.0},
        {"start_boost": 1.5},
        {"method": "magic"},
        {"max_frames": 8},
        {"context_noise": -0.1},
        {"report_dropout": 2.0},
        {"time_shift": 0.5},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, object]):
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        TrainSettings(**wrong)


def test_the_settings_of_the_paper_are_its_own():
    settings = TrainSettings.ctflow(start_boost=0.25)

    assert settings.method == "ctflow"
    assert (settings.context_noise, settings.time_shift) == (0.05, 1.0)
    assert settings.start_boost == 0.25
