"""A site has what an order names, or lacks it, or was sent another thing."""

from dataclasses import replace

import numpy as np
import pytest

from ctflow_fed.errors import MismatchError, UpdateError
from ctflow_fed.federation import (
    Change,
    Depot,
    Parcel,
    Parcels,
    RoundOrder,
    SiteState,
    arrays_digest,
    arrays_of,
    open_parcel,
    pack,
    part_of,
    plus,
    unpack,
)
from ctflow_fed.model import FMvTConfig, fresh_network
from ctflow_fed.training import TrainSettings

CONFIG = FMvTConfig(layers=1, features=32, heads=2)
NETWORK = fresh_network(CONFIG, seed=0)
BASE = arrays_of(NETWORK)
WHOLE, ADAPTER = (part_of(CONFIG, BASE, rank, seed=0) for rank in (0, 4))
FIRST = WHOLE.first
STEP = pack({n: np.full_like(v, 0.01) for n, v in FIRST.items()}, "int8")
SECOND = plus(FIRST, unpack(STEP, WHOLE.manifest, "int8"))
CHANGE = Change(arrays_digest(FIRST), STEP)


def order(arrays=FIRST, part=WHOLE):
    return RoundOrder(
        round_number=1,
        steps=1,
        seed=0,
        training=TrainSettings(),
        network=CONFIG,
        manifest=part.signature,
        start=arrays_digest(arrays),
        job="0" * 64,
        sites=2,
        adapter_rank=4 if part is ADAPTER else 0,
        base=part.base_digest,
        precision="int8",
    )


@pytest.fixture
def parcels_of(tmp_path):
    """Make the parcels of an order, in a depot that nobody needs."""
    depot = Depot(tmp_path / "shards", tmp_path / "arrived")

    def parcels(order, arrays, part, change):
        return Parcels(order, arrays, part, change, depot)

    return parcels


@pytest.fixture
def state(tmp_path):
    return SiteState(tmp_path, "0" * 64)


def is_same(opened, arrays):
    return arrays_digest(opened.arrays) == arrays_digest(arrays)


def test_weights_that_were_sent_need_not_be_sent_again(state, parcels_of):
    sent = parcels_of(order(), FIRST, WHOLE, None).for_holder("")

    assert is_same(open_parcel(sent, order(), state), FIRST)
    nothing = parcels_of(order(), FIRST, WHOLE, None).for_holder(arrays_digest(FIRST))
    assert nothing.bytes == 0
    assert is_same(open_parcel(nothing, order(), state), FIRST)


def test_a_change_leads_to_the_weights_of_the_server_bit_for_bit(state, parcels_of):
    open_parcel(Parcel(weights=pack(FIRST)), order(), state)
    parcels = parcels_of(order(SECOND), SECOND, WHOLE, CHANGE)
    parcel = parcels.for_holder(arrays_digest(FIRST))

    assert parcel.weights is None
    assert parcel.bytes < parcels.for_holder("").bytes / 3
    assert is_same(open_parcel(parcel, order(SECOND), state), SECOND)
    assert is_same(open_parcel(Parcel(), order(SECOND), state), SECOND)


def test_who_holds_neither_is_sent_all_weights(state, parcels_of):
    parcel = parcels_of(order(SECOND), SECOND, WHOLE, CHANGE).for_holder("1" * 64)

    assert is_same(open_parcel(parcel, order(SECOND), state), SECOND)


def test_a_site_without_the_weights_before_lacks_them(state):
    assert open_parcel(Parcel(), order(), state) is None
    assert open_parcel(Parcel(change=STEP), order(SECOND), state) is None

    open_parcel(Parcel(weights=pack(SECOND)), order(SECOND), state)
    assert open_parcel(Parcel(change=STEP), order(SECOND), state) is None
    assert open_parcel(Parcel(), order(FIRST), state) is None


def test_a_site_without_the_base_of_an_adapter_lacks_it_until_it_is_sent(
    state, parcels_of
):
    adapter = order(ADAPTER.first, ADAPTER)
    parcels = parcels_of(adapter, ADAPTER.first, ADAPTER, None)

    assert open_parcel(parcels.for_holder(""), adapter, state) is None
    opened = open_parcel(parcels.everything, adapter, state)
    assert opened.part.base_digest == arrays_digest(arrays_of(NETWORK))
    assert is_same(open_parcel(Parcel(), adapter, state), ADAPTER.first)


def test_other_weights_than_the_order_names_are_refused(state):
    with pytest.raises(UpdateError, match="the weights that the order names"):
        open_parcel(Parcel(weights=pack(SECOND)), order(FIRST), state)

    assert state.weights() is None


def test_another_base_than_the_order_names_is_refused(state):
    parcel = Parcel(weights=pack(ADAPTER.first), base=pack(SECOND))

    with pytest.raises(UpdateError, match="the weights that the order names"):
        open_parcel(parcel, order(ADAPTER.first, ADAPTER), state)
    assert state.base(arrays_digest(SECOND)) is None


def test_weights_of_another_network_are_refused(state):
    other = arrays_of(fresh_network(replace(CONFIG, features=64), seed=0))

    with pytest.raises(UpdateError, match="another network"):
        open_parcel(Parcel(weights=pack(other)), order(), state)


def test_a_change_of_another_precision_is_refused(state):
    open_parcel(Parcel(weights=pack(FIRST)), order(), state)

    with pytest.raises(UpdateError, match="as int8"):
        open_parcel(Parcel(change=pack(FIRST, "bfloat16")), order(SECOND), state)


@pytest.mark.parametrize("part", [WHOLE, ADAPTER])
def test_an_order_for_another_library_is_refused(state, parcels_of, part):
    other = replace(order(part.first, part), manifest="0" * 64)
    parcel = parcels_of(other, part.first, part, None).everything

    with pytest.raises(MismatchError, match="same version"):
        open_parcel(parcel, other, state)
