from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ctflow_fed.ct.store import LatentStore
from ctflow_fed.federation import (
    Opened,
    RoundOrder,
    SiteMemory,
    arrays_digest,
    arrays_of,
    local_loss,
    local_round,
    minus,
    norm_of,
    part_of,
    plus,
    unpack,
)
from ctflow_fed.model import PRESETS, fresh_network
from ctflow_fed.training import TrainSettings

FRESH = fresh_network(PRESETS["nano"], seed=0)
PART = part_of(FRESH.config, arrays_of(FRESH), adapter_rank=0, seed=0)
START = PART.first
EMPTY = SiteMemory()


def order(round_number=1, **training):
    return RoundOrder(
        round_number=round_number,
        steps=2,
        seed=0,
        training=TrainSettings(batch_clips=2, **training),
        network=PRESETS["nano"],
        manifest=PART.signature,
        start=arrays_digest(START),
        job="0" * 64,
        sites=2,
    )


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """What a site keeps of an update lies in a folder of the test."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def store(haar_store):
    return LatentStore.open(haar_store)


def trained(store, order, site="a", memory=EMPTY, part=PART):
    """Return what a site has trained from the first arrays, and its result."""
    result = local_round(
        store, order, Opened(part, part.first), site, memory, Path("outbox")
    )
    received = unpack(result.cargo, part.manifest, order.precision)
    if order.precision != "float32":
        received = plus(part.first, received)
    return received, result


def moved(arrays, start=START):
    return norm_of(minus(arrays, start))


def test_a_round_is_the_same_when_it_is_repeated(store):
    (first, result), (second, again) = (trained(store, order()) for _ in range(2))

    assert result.slices == 92
    assert result.loss_last == again.loss_last
    assert all(np.array_equal(first[n], second[n]) for n in START)
    assert moved(first) > 0
    assert result.memory.is_empty


def test_rounds_and_sites_draw_differently(store):
    losses = {
        trained(store, order(number), site)[1].loss_first
        for number, site in [(1, "a"), (2, "a"), (1, "b")]
    }

    assert len(losses) == 3


def test_fedprox_holds_a_site_back(store):
    free, held = (
        trained(store, replace(order(proximal=mu), steps=10))[0] for mu in (0.0, 100.0)
    )

    assert moved(held) < moved(free)


def test_the_loss_of_some_weights_does_not_depend_on_the_round(store):
    opened = Opened(PART, START)
    losses = {local_loss(store, order(number), opened) for number in (1, 2)}

    assert len(losses) == 1


def test_a_site_trains_and_evaluates_by_the_method_that_it_is_told(store):
    papers = replace(order(), training=TrainSettings.ctflow(batch_clips=2))
    places = [name for name in START if name.startswith("frame_embedder.")]

    ours, theirs = (trained(store, each)[0] for each in (order(), papers))
    assert any(not np.array_equal(ours[name], START[name]) for name in places)
    assert all(np.array_equal(theirs[name], START[name]) for name in places)
    assert theirs.keys() == START.keys()

    opened = Opened(PART, START)
    losses = {local_loss(store, each, opened) for each in (order(), papers)}
    assert len(losses) == 2


@pytest.mark.parametrize(("precision", "error"), [("bfloat16", 0.005), ("int8", 0.02)])
def test_what_rounding_takes_from_an_update_is_kept_for_the_next(
    store, precision, error
):
    exact, _ = trained(store, order())
    rounded = replace(order(), precision=precision)
    arrays, result = trained(store, rounded)
    left = result.memory.residual

    assert 0 < norm_of(left) < error * moved(exact)
    assert moved(plus(arrays, left), exact) < 1e-5 * moved(exact)
    again, _ = trained(store, rounded, memory=result.memory)
    assert moved(again, arrays) > norm_of(left) / 2


def test_an_optimizer_that_is_kept_goes_on_and_a_fresh_one_does_not(store):
    kept = replace(order(), optimizer="kept")
    first, result = trained(store, kept)
    fresh, _ = trained(store, order())
    memory = result.memory.optimizer

    assert moved(first, fresh) == 0.0
    assert memory.steps == 2
    assert "momentum.blocks.0.attn.qkv.weight" in memory.tensors
    later = replace(kept, round_number=2)
    on, after = trained(store, later, memory=result.memory)
    again, _ = trained(store, later, memory=result.memory)
    anew, _ = trained(store, replace(later, optimizer="fresh"), memory=result.memory)
    assert after.memory.optimizer.steps == 4
    assert moved(on, again) == 0.0 < moved(on, anew)


def test_a_site_trains_an_adapter_and_neither_its_base_nor_its_matrices_a(store):
    generator = np.random.default_rng(0)
    filled = {  # as if it were trained: nothing is learnt behind a last layer of zeros
        name: value + np.float32(0.05 * generator.normal(size=value.shape))
        for name, value in START.items()
    }
    part = part_of(PRESETS["nano"], filled, adapter_rank=4, seed=0)
    adapter = replace(order(), base=part.base_digest, adapter_rank=4)
    arrays, _ = trained(store, adapter, part=part)

    assert arrays.keys() == part.first.keys()
    assert all(name.endswith(".lora_B") for name in arrays)
    assert moved(arrays, part.first) > 0
    after = part.merged(arrays)
    changed = {name for name in after if not np.array_equal(after[name], filled[name])}
    assert changed <= {name.replace("lora_B", "weight") for name in arrays}
    assert len(changed) > 1
