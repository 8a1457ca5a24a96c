"""A mean of what travels is the mean of what it stands for."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ctflow_fed.errors import UpdateError
from ctflow_fed.federation import (
    ArrayFile,
    arrays_digest,
    arrays_of,
    federated_average,
    network_of,
    part_of,
    write_arrays,
)
from ctflow_fed.model import (
    PRESETS,
    Conditions,
    FMvTConfig,
    FrameConditions,
    fresh_network,
)
from ctflow_fed.model.fmvt import is_extension

SMALL = FMvTConfig(layers=1, features=32, heads=2)
SHARES = {"a": 0.25, "b": 0.75}


def base(*, released=False):
    return fresh_network(replace(SMALL, released=released), seed=0)


def part_in(network, adapter_rank, seed):
    return part_of(network.config, arrays_of(network), adapter_rank, seed)


def noisy(arrays, seed, size=0.1):
    generator = np.random.default_rng(seed)
    return {
        name: (value + size * generator.normal(size=value.shape)).astype(np.float32)
        for name, value in arrays.items()
    }


@torch.inference_mode()
def numbers_of(network):
    generator = torch.Generator().manual_seed(0)
    noise, context = torch.randn(2, 1, 16, 16, 8, 8, generator=generator)
    features = network.frame_embedder.geometry.in_features // 13
    unknown = torch.zeros(1, 16, dtype=torch.bool)
    frames = FrameConditions.of(torch.zeros(1, 16, features), unknown, torch.zeros(1))
    report = torch.randn(1, 3, 768, generator=generator)
    told = Conditions(context, report, torch.ones(1, 3).bool(), frames)
    return network(noise, torch.tensor([0.7]), told)


@pytest.mark.parametrize("rank", [0, 4])
@pytest.mark.parametrize("released", [False, True])
def test_what_is_trained_is_what_was_sent_until_a_step_is_taken(rank, released):
    part = part_in(base(released=released), rank, seed=0)
    sent = noisy(part.first, seed=1)

    back = part.trained(part.trainable(sent))
    assert back.keys() == sent.keys() == part.manifest.keys()
    assert all(np.allclose(back[name], sent[name], atol=1e-7) for name in sent)


@pytest.mark.parametrize("released", [False, True])
def test_the_mean_of_adapters_is_the_mean_of_their_networks(released):
    part = part_in(base(released=released), adapter_rank=4, seed=0)
    updates = {site: noisy(part.first, seed) for seed, site in enumerate(SHARES)}

    of_means = part.merged(federated_average(updates, SHARES))
    networks = {site: part.merged(each) for site, each in updates.items()}
    for name, value in of_means.items():
        mean = sum(SHARES[site] * networks[site][name] for site in SHARES)
        assert np.allclose(value, mean, atol=1e-6)


@pytest.mark.parametrize("released", [False, True])
def test_a_network_with_its_adapter_beside_it_gives_the_merged_ones_numbers(
    tmp_path, released
):
    network = base(released=released)  # its last layer is one of zeros
    filled = noisy(arrays_of(network), seed=0)
    weights = write_arrays(tmp_path / "base", filled)
    part = part_of(network.config, weights, adapter_rank=4, seed=0)
    moved = noisy(part.first, seed=1)

    beside = numbers_of(part.network(moved))
    merged = numbers_of(network_of(part.config, part.merged(moved)))
    alone = numbers_of(network_of(part.config, weights))

    largest = merged.abs().max()
    assert (beside - merged).abs().max() < 1e-4 * largest
    assert (beside - alone).abs().max() > 1e-2 * largest
    assert arrays_digest(ArrayFile(weights.path)) == part.base_digest


def test_an_adapter_sends_a_few_of_the_weights_and_no_matrix_a():
    whole = part_in(fresh_network(PRESETS["tiny"], seed=0), 0, seed=0)
    part = part_in(fresh_network(PRESETS["tiny"], seed=0), adapter_rank=16, seed=0)
    sizes = [sum(v.size for v in each.first.values()) for each in (whole, part)]

    assert sizes[0] > 10 * sizes[1]
    assert all(name.endswith(".lora_B") for name in part.first)


def test_our_extensions_of_a_released_network_travel_with_an_adapter():
    names = part_in(base(released=True), adapter_rank=4, seed=0).first
    everything = base(released=True).state_dict()

    assert {name for name in names if not name.endswith(".lora_B")} == {
        name for name in everything if is_extension(name)
    }


def test_an_adapter_begins_as_its_base():
    part = part_in(base(), adapter_rank=4, seed=0)

    before, after = base().state_dict(), part.merged(part.first)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert part.length(part.first) == part.length(noisy(part.first, 1)) > 0


def test_the_signature_names_shapes_and_the_matrices_that_stay():
    signatures = [
        part_in(base(), rank, seed).signature
        for rank, seed in [(0, 0), (0, 1), (4, 0), (4, 0), (4, 1), (5, 0)]
    ]

    assert signatures[0] == signatures[1]
    assert signatures[2] == signatures[3]
    assert len(set(signatures)) == 4


def test_a_network_of_other_arrays_is_refused():
    part = part_in(base(), 0, seed=0)
    other = part_in(fresh_network(PRESETS["nano"], seed=0), 0, seed=0)

    with pytest.raises(UpdateError, match="another network"):
        part.network(other.first)
