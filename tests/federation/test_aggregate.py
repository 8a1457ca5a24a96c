import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctflow_fed.errors import UpdateError
from ctflow_fed.federation import federated_average, weighted_mean


def update(value):
    return {"w": np.full((2, 2), value, np.float32), "b": np.float32([value, -value])}


def test_the_average_counts_each_site_by_its_slices():
    average = federated_average({"a": update(1.0), "b": update(4.0)}, {"a": 1, "b": 2})

    expected = (1.0 * 1 + 4.0 * 2) / 3
    assert average["w"] == pytest.approx(np.full((2, 2), expected))
    assert average["b"] == pytest.approx([expected, -expected])
    assert average["w"].dtype == np.float32


def test_one_site_keeps_its_weights_bit_for_bit():
    only = {"w": np.random.default_rng(0).normal(size=9).astype(np.float32)}

    average = federated_average({"a": only}, {"a": 7})

    assert np.array_equal(average["w"], only["w"])


@given(
    values=st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=6),
    order=st.randoms(use_true_random=False),
)
def test_the_order_of_the_sites_changes_no_bit(values, order):
    updates = {f"site-{i}": update(value) for i, value in enumerate(values)}
    slices = {name: i + 1 for i, name in enumerate(updates)}
    names = list(updates)
    order.shuffle(names)

    expected = federated_average(updates, slices)
    average = federated_average({name: updates[name] for name in names}, slices)

    assert all(np.array_equal(average[key], expected[key]) for key in expected)


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=6))
def test_sites_that_agree_are_their_average(counts):
    slices = {f"site-{i}": count for i, count in enumerate(counts)}

    average = federated_average({name: update(0.25) for name in slices}, slices)

    assert average["w"] == pytest.approx(np.full((2, 2), 0.25))


@pytest.mark.parametrize("slices", [{"a": 0, "b": 0}, {"a": 3, "b": -1}])
def test_sites_without_slices_have_no_average(slices):
    with pytest.raises(UpdateError, match="got none"):
        federated_average({"a": update(1.0), "b": update(2.0)}, slices)


def test_no_site_has_no_average():
    with pytest.raises(UpdateError, match="got none"):
        federated_average({}, {})


def test_a_mean_loss_counts_each_site_by_its_slices():
    assert weighted_mean({"a": 1.0, "b": 2.0}, {"a": 30, "b": 10}) == pytest.approx(
        (1.0 * 30 + 2.0 * 10) / 40
    )
