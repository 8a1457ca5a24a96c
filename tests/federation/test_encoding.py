"""Arrays survive the wire as well as their precision says; anything else is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from ctflow_fed.errors import UpdateError
from ctflow_fed.federation import (
    PRECISIONS,
    WireArray,
    arrays_of,
    bytes_of,
    compress,
    manifest_of,
    norm_of,
    pack,
    packed,
    unpack,
)
from ctflow_fed.federation.arrays import LONGEST_RUN
from ctflow_fed.federation.encoding import BLOCK, joined
from ctflow_fed.model import FMvTConfig, fresh_network
from ctflow_fed.model.fmvt import is_extension

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.float32([0.5]),
}
MANIFEST = manifest_of(ARRAYS)
STEP = {"float32": 0.0, "bfloat16": 2**-8, "int8": 1 / 254}
"""The largest error of a precision, relative to the largest value around."""

any_array = arrays(
    np.float32,
    array_shapes(min_dims=0, min_side=0, max_side=40),
    elements=st.floats(-(2**99), 2**99, width=32),
)


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@given(any_array)
def test_float32_survives_the_wire_bit_for_bit(values):
    sent = {"a": values, "b": np.float32(1.5).reshape(())}

    received = unpack(pack(sent), manifest_of(sent))

    assert all(received[name].tobytes() == sent[name].tobytes() for name in sent)
    assert received["b"].shape == ()


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
@given(any_array)
def test_rounding_stays_within_the_step_of_its_precision(precision, values):
    sent = {"a": values}

    received = unpack(pack(sent, precision), manifest_of(sent), precision)["a"]

    assert received.shape == values.shape
    largest = np.abs(values).max(initial=0.0)
    limit = STEP[precision] * largest * 1.001 + 1e-38
    assert np.abs(received - values).max(initial=0.0) <= limit


@pytest.mark.parametrize(("precision", "size"), [("float32", 4), ("bfloat16", 2)])
def test_a_value_has_as_many_bytes_as_its_precision(precision, size):
    assert bytes_of(pack({"a": drawn(30, 20)}, precision)) == 600 * size


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 512, 513, 100_000])
def test_int8_has_a_byte_a_value_and_four_a_block(count):
    sent = {"a": drawn(count)}
    wire = pack(sent, "int8")

    assert bytes_of(wire) == count + 4 * -(-count // 256)
    assert unpack(wire, manifest_of(sent), "int8")["a"].shape == (count,)


def test_int8_rounds_ties_to_even_and_scales_each_block_by_itself():
    values = np.zeros(512, np.float32)
    values[:5] = [127, 0.5, 1.5, -2.5, 126.4]
    values[256] = 127e-6

    received = unpack(pack({"a": values}, "int8"), {"a": (512,)}, "int8")["a"]

    assert received[:5].tolist() == [127, 0, 2, -2, 126]
    assert received[256] == pytest.approx(127e-6, rel=1e-6)
    assert np.count_nonzero(received) == 5


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_was_rounded_once_is_not_rounded_again(precision):
    once = unpack(pack({"a": drawn(700)}, precision), {"a": (700,)}, precision)
    twice = unpack(pack(once, precision), {"a": (700,)}, precision)

    assert np.allclose(once["a"], twice["a"], rtol=1e-6, atol=0)


@pytest.mark.parametrize("released", [False, True])
def test_the_extensions_of_a_network_travel_too(released):
    config = FMvTConfig(layers=1, features=16, heads=2, released=released)
    sent = arrays_of(fresh_network(config, seed=0))

    received = unpack(pack(sent), manifest_of(sent))

    extensions = [name for name in received if is_extension(name)]
    assert len(extensions) > 5
    assert all(received[n].tobytes() == sent[n].tobytes() for n in extensions)


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_error_feedback_loses_nothing_over_many_changes(precision):
    changes = [drawn(300, seed=seed) * np.float32(1e-3) for seed in range(50)]
    fed = plain = np.zeros(300, np.float32)
    residual = None
    for change in changes:
        _, arrived, residual = compress(change.copy(), residual, precision)
        fed = fed + arrived
        plain = plain + compress(change.copy(), None, precision).arrived

    exact = np.sum(changes, axis=0)
    left, lost = (norm_of({"a": each - exact}) for each in (fed, plain))
    assert left == pytest.approx(norm_of({"a": residual}), rel=0.05)
    assert left < lost / 3


def test_what_arrives_is_what_the_wire_decodes_to():
    done = compress(drawn(600), drawn(600, seed=1), "int8")

    (received,) = unpack(
        {"a": WireArray("int8", (600,), done.data)}, {"a": (600,)}, "int8"
    ).values()
    assert received.tobytes() == done.arrived.tobytes()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_change_that_is_not_finite_does_not_leave(precision, bad):
    with pytest.raises(UpdateError, match="not finite"):
        compress(np.float32([1, bad]), None, precision)


def test_runs_are_of_whole_blocks():
    assert LONGEST_RUN % BLOCK == 0


@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_array_travels_the_same_in_runs_as_in_one(monkeypatch, precision):
    sent = {"a": drawn(2500), "b": drawn(3), "c": drawn(0)}
    whole = pack(sent, precision)
    monkeypatch.setattr("ctflow_fed.federation.arrays.LONGEST_RUN", 1024)

    runs = list(packed(sent, manifest_of(sent), precision))
    assert [name for name, _ in runs] == ["a", "a", "a", "b", "c"]
    assert joined(runs, manifest_of(sent), precision) == whole


def replaced(precision="float32", **changes):
    wire = pack(ARRAYS, precision)
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
        (pack(ARRAYS, "int8"), "float32"),
    ],
)
def test_what_the_manifest_does_not_say_is_refused(wire, reason):
    with pytest.raises(UpdateError, match=reason):
        unpack(wire, MANIFEST)


NAN_SCALE = np.float32([np.nan]).tobytes()
INFINITE_SCALE = np.float32([np.inf]).tobytes()
HUGE_SCALE = np.float32([3e38]).tobytes()


@pytest.mark.parametrize(
    ("precision", "data", "reason"),
    [
        ("int8", b"", "length"),
        ("int8", b"\x00" * 9, "length"),
        ("int8", b"\x00" * 260, "length"),
        ("int8", NAN_SCALE + b"\x00" * 6, "not finite"),
        ("int8", INFINITE_SCALE + b"\x00" * 6, "not finite"),
        ("int8", HUGE_SCALE + b"\x7f" * 6, "not finite"),
        ("bfloat16", b"\x00" * 11, "length"),
        ("bfloat16", b"\x00" * 24, "length"),
        ("bfloat16", b"\xc0\x7f" * 6, "not finite"),
        ("bfloat16", b"\x80\x7f" * 6, "not finite"),
        ("bfloat16", b"\x80\xff" * 6, "not finite"),
    ],
)
def test_broken_codes_are_refused(precision, data, reason):
    with pytest.raises(UpdateError, match=reason):
        unpack(replaced(precision, data=data), MANIFEST, precision)


@given(st.binary(min_size=10, max_size=10), st.sampled_from(["int8", "bfloat16"]))
def test_any_bytes_of_the_right_length_are_numbers_or_refused(data, precision):
    length = {"int8": 10, "bfloat16": 12}[precision]
    wire = replaced(precision, data=(data + data)[:length])
    try:
        received = unpack(wire, MANIFEST, precision)
    except UpdateError:
        return
    assert all(np.isfinite(value).all() for value in received.values())
