from dataclasses import replace

import numpy as np
import pytest

from ctflow_fed.ct.store import LatentStore
from ctflow_fed.errors import MismatchError, UpdateError
from ctflow_fed.federation import (
    RoundOrder,
    arrays_digest,
    arrays_of,
    local_loss,
    local_round,
    manifest_digest,
    manifest_of,
    norm_of,
    pack,
)
from ctflow_fed.model import PRESETS, fresh_network
from ctflow_fed.training import TrainSettings

START = arrays_of(fresh_network(PRESETS["nano"], seed=0))


def order(round_number=1, **training):
    return RoundOrder(
        round_number=round_number,
        steps=2,
        seed=0,
        training=TrainSettings(batch_clips=2, **training),
        network=PRESETS["nano"],
        manifest=manifest_digest(manifest_of(START)),
        start=arrays_digest(START),
    )


@pytest.fixture
def store(haar_store):
    return LatentStore.open(haar_store)


def moved(result):
    return norm_of({name: result.arrays[name] - START[name] for name in START})


def test_a_round_is_the_same_when_it_is_repeated(store):
    first, second = (local_round(store, order(), pack(START), "a") for _ in range(2))

    assert first.slices == 92
    assert first.loss_last == second.loss_last
    assert all(np.array_equal(first.arrays[n], second.arrays[n]) for n in START)
    assert moved(first) > 0


def test_rounds_and_sites_draw_differently(store):
    losses = {
        local_round(store, order(number), pack(START), site).loss_first
        for number, site in [(1, "a"), (2, "a"), (1, "b")]
    }

    assert len(losses) == 3


def test_fedprox_holds_a_site_back(store):
    free, held = (
        local_round(store, replace(order(proximal=mu), steps=10), pack(START), "a")
        for mu in (0.0, 100.0)
    )

    assert moved(held) < moved(free)


def test_the_loss_of_some_weights_does_not_depend_on_the_round(store):
    losses = {local_loss(store, order(number), pack(START)) for number in (1, 2)}

    assert len(losses) == 1


def test_a_site_trains_and_evaluates_by_the_method_that_it_is_told(store):
    papers = replace(order(), training=TrainSettings.ctflow(batch_clips=2))
    places = [name for name in START if name.startswith("frame_embedder.")]

    ours, theirs = (
        local_round(store, each, pack(START), "a").arrays for each in (order(), papers)
    )
    assert any(not np.array_equal(ours[name], START[name]) for name in places)
    assert all(np.array_equal(theirs[name], START[name]) for name in places)
    assert theirs.keys() == START.keys()

    losses = {local_loss(store, each, pack(START)) for each in (order(), papers)}
    assert len(losses) == 2


def test_weights_of_another_network_are_refused(store):
    other = arrays_of(fresh_network(PRESETS["tiny"], seed=0))

    with pytest.raises(UpdateError, match="another network"):
        local_round(store, order(), pack(other), "a")


def test_an_order_for_another_library_is_refused(store):
    record = {**order().to_record(), "manifest": "0" * 64}

    with pytest.raises(MismatchError, match="same version"):
        local_round(store, RoundOrder.from_record(record), pack(START), "a")


def test_other_weights_than_the_order_names_are_refused(store):
    later = {name: value + np.float32(1) for name, value in START.items()}

    with pytest.raises(UpdateError, match="the weights that the order names"):
        local_loss(store, order(), pack(later))
