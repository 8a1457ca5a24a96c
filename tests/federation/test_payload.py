import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ctflow_fed.errors import UpdateError
from ctflow_fed.federation import (
    arrays_of,
    check_update,
    load_arrays,
    manifest_digest,
    manifest_of,
    norm_of,
    pack,
    unpack,
)
from ctflow_fed.model import PRESETS, FMvTConfig, fresh_network
from ctflow_fed.model.fmvt import is_extension

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.float32([0.5]),
}
MANIFEST = manifest_of(ARRAYS)


@given(st.lists(st.floats(width=32, allow_nan=False), max_size=8))
def test_arrays_survive_the_wire_bit_for_bit(values):
    arrays = {"a": np.array(values, np.float32), "b": np.float32(1.5).reshape(())}

    received = unpack(pack(arrays), manifest_of(arrays))

    assert all(received[name].tobytes() == arrays[name].tobytes() for name in arrays)
    assert received["b"].shape == ()


def test_a_network_takes_back_its_own_weights():
    network = fresh_network(PRESETS["nano"], seed=1)
    other = fresh_network(PRESETS["nano"], seed=2)

    load_arrays(other, arrays_of(network))

    for name, value in network.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)


@pytest.mark.parametrize("released", [False, True])
def test_the_extensions_of_a_network_travel_too(released):
    config = FMvTConfig(layers=1, features=16, heads=2, released=released)
    arrays = arrays_of(fresh_network(config, seed=0))

    received = unpack(pack(arrays), manifest_of(arrays))

    extensions = [name for name in received if is_extension(name)]
    assert len(extensions) > 5
    assert all(received[n].tobytes() == arrays[n].tobytes() for n in extensions)


def test_a_network_refuses_the_weights_of_another_size():
    nano = fresh_network(PRESETS["nano"], seed=1)
    tiny = fresh_network(PRESETS["tiny"], seed=1)

    with pytest.raises(UpdateError, match="another network"):
        load_arrays(nano, arrays_of(tiny))


def replaced(**changes):
    wire = pack(ARRAYS)
    wire["a"] = wire["a"]._replace(**changes)
    return wire


@pytest.mark.parametrize(
    ("wire", "reason"),
    [
        ({}, "0 of them"),
        ({"a": pack(ARRAYS)["a"]}, "1 of them"),
        ({**pack(ARRAYS), "c": pack(ARRAYS)["b"]}, "1 others"),
        (replaced(shape=(3, 2)), "shapes"),
        (replaced(shape=(2, 3, 1)), "shapes"),
        (replaced(dtype="float64"), "float32"),
        (replaced(dtype="object"), "float32"),
        (replaced(data=b""), "length"),
        (replaced(data=b"\x80" * 25), "length"),
        (replaced(data=b"\x93NUMPY" + b"\x00" * 400), "length"),
    ],
)
def test_what_the_manifest_does_not_say_is_refused(wire, reason):
    with pytest.raises(UpdateError, match=reason):
        unpack(wire, MANIFEST)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_update_that_is_not_finite_is_refused(bad):
    update = {**ARRAYS, "b": np.float32([bad])}

    with pytest.raises(UpdateError, match="not finite"):
        check_update(update, ARRAYS)


def test_an_update_that_was_scaled_is_refused():
    update = {name: value * 1000 for name, value in ARRAYS.items()}

    with pytest.raises(UpdateError, match="999 times"):
        check_update(update, ARRAYS)


def test_an_honest_update_tells_how_far_it_moved():
    update = {name: value * 1.5 for name, value in ARRAYS.items()}

    assert check_update(update, ARRAYS) == pytest.approx(0.5)
    assert norm_of(ARRAYS) == pytest.approx((0 + 1 + 4 + 9 + 16 + 25 + 0.25) ** 0.5)


def test_the_manifest_digest_depends_on_names_and_shapes_but_not_on_order():
    backwards = dict(reversed(ARRAYS.items()))
    other = {**ARRAYS, "b": np.zeros(2, np.float32)}

    assert manifest_digest(manifest_of(backwards)) == manifest_digest(MANIFEST)
    assert manifest_digest(manifest_of(other)) != manifest_digest(MANIFEST)
