import statistics
from pathlib import Path

import pytest
import torch

from ctflow_fed.ct.store import LatentStore, StoreHeader
from ctflow_fed.errors import MismatchError, SettingsError, StoreError
from ctflow_fed.model import FMvT, FMvTConfig, fresh_network
from ctflow_fed.training import TrainSettings, evaluate_loss, fit

SMALL = FMvTConfig(layers=1, features=32, heads=2)
SETTINGS = TrainSettings(batch_clips=2, warmup_steps=2, learning_rate=1e-2)


def _weights(network: FMvT) -> torch.Tensor:
    return torch.cat([value.detach().flatten() for value in network.parameters()])


def test_training_lowers_the_loss(haar_store: Path):
    store = LatentStore.open(haar_store)
    network = fresh_network(SMALL, seed=0)
    before = evaluate_loss(network, store, seed=0)

    result = fit(network, store, SETTINGS, steps=60, seed=0)

    assert evaluate_loss(network, store, seed=0) < 0.9 * before
    assert statistics.mean(result.losses[-20:]) < statistics.mean(result.losses[:20])
    assert result.slices == 20 + 32 + 40


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
        settings = TrainSettings(batch_clips=2, warmup_steps=2, proximal=proximal)
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
    [{"batch_clips": 0}, {"learning_rate": -1.0}, {"start_boost": 1.5}],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]):
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        TrainSettings(**wrong)
