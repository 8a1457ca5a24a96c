from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctflow_fed.errors import UpdateError
from ctflow_fed.federation import (
    arrays,
    coordinate_median,
    federated_average,
    shares_of,
    trimmed_mean,
    weighted_mean,
)


def update(value):
    return {"w": np.full((2, 2), value, np.float32), "b": np.float32([value, -value])}


def test_the_average_counts_each_site_by_its_slices():
    shares = shares_of({"a": 1, "b": 2})
    average = federated_average({"a": update(1.0), "b": update(4.0)}, shares)

    expected = (1.0 * 1 + 4.0 * 2) / 3
    assert average["w"] == pytest.approx(np.full((2, 2), expected))
    assert average["b"] == pytest.approx([expected, -expected])
    assert average["w"].dtype == np.float32


def test_one_site_keeps_its_weights_bit_for_bit():
    only = {"w": np.random.default_rng(0).normal(size=9).astype(np.float32)}

    average = federated_average({"a": only}, shares_of({"a": 7}))

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
    shares = shares_of(slices, 0.4)
    shuffled = shares_of({name: slices[name] for name in names}, 0.4)

    assert shuffled == shares
    for average in (federated_average, trimmed_mean, coordinate_median):
        expected = average(updates, shares)
        got = average({name: updates[name] for name in names}, shuffled)
        assert all(np.array_equal(got[key], expected[key]) for key in expected)


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=6))
def test_sites_that_agree_are_their_average(counts):
    slices = {f"site-{i}": count for i, count in enumerate(counts)}

    updates = {name: update(0.25) for name in slices}

    for average in (federated_average, trimmed_mean, coordinate_median):
        agreed = average(updates, shares_of(slices, 0.3))
        assert agreed["w"] == pytest.approx(np.full((2, 2), 0.25))


@pytest.mark.parametrize("slices", [{"a": 0, "b": 0}, {"a": 3, "b": -1}])
def test_sites_without_slices_have_no_average(slices):
    with pytest.raises(UpdateError, match="got none"):
        shares_of(slices)


def test_no_site_has_no_average():
    with pytest.raises(UpdateError, match="got none"):
        shares_of({})


def test_a_mean_loss_counts_each_site_by_its_slices():
    mean = weighted_mean({"a": 1.0, "b": 2.0}, shares_of({"a": 30, "b": 10}))

    assert mean == pytest.approx((1.0 * 30 + 2.0 * 10) / 40)


def test_no_site_has_more_than_the_largest_share():
    shares = shares_of({"a": 900, "b": 60, "c": 40}, 0.5)

    assert shares == pytest.approx({"a": 0.5, "b": 0.5 * 0.6, "c": 0.5 * 0.4})


def test_a_cap_that_the_rest_would_break_holds_for_them_too():
    shares = shares_of({"a": 900, "b": 90, "c": 10}, 0.4)

    assert shares == pytest.approx({"a": 0.4, "b": 0.4, "c": 0.2})


def test_a_cap_below_an_equal_share_makes_all_equal():
    assert shares_of({"a": 5, "b": 1}, 0.1) == {"a": 0.5, "b": 0.5}


@given(
    counts=st.lists(st.integers(1, 10**9), min_size=1, max_size=8),
    largest=st.floats(0.01, 1.0),
)
def test_shares_sum_to_one_and_keep_the_order_of_the_sites(counts, largest):
    slices = {f"site-{i}": count for i, count in enumerate(counts)}

    shares = shares_of(slices, largest)

    assert sum(shares.values()) == pytest.approx(1.0)
    assert max(shares.values()) <= max(largest, 1 / len(counts)) + 1e-12
    by_slices = sorted(slices, key=lambda site: slices[site])
    for small, large in pairwise(by_slices):
        assert shares[small] <= shares[large] + 1e-12


def test_a_cap_that_no_site_reaches_changes_no_bit():
    slices = {"a": 31, "b": 17, "c": 7}

    assert shares_of(slices, 0.6) == shares_of(slices)


@pytest.mark.parametrize(
    ("values", "mean", "median"),
    [
        ([1.0], 1.0, 1.0),
        ([1.0, 3.0], (1 + 3) / 2, (1 + 3) / 2),
        ([1.0, 2.0, 1e6], 2.0, 2.0),
        ([-1e6, 1.0, 3.0, 1e6], (1 + 3) / 2, (1 + 3) / 2),
        ([1.0, 2.0, 3.0, 5.0, 1e6], (2 + 3 + 5) / 3, 3.0),
        ([-1e6, -1e6, 1.0, 2.0, 1e6, 1e6], (1 + 2) / 2, (1 + 2) / 2),
    ],
)
def test_few_sites_cannot_move_a_robust_mean(values, mean, median):
    updates = {f"site-{i}": update(value) for i, value in enumerate(values)}
    shares = shares_of(dict.fromkeys(updates, 1))

    assert trimmed_mean(updates, shares)["b"] == pytest.approx([mean, -mean])
    assert coordinate_median(updates, shares)["b"] == pytest.approx([median, -median])


def test_each_coordinate_is_trimmed_by_itself():
    values = {"a": [9.0, 1.0], "b": [2.0, 9.0], "c": [3.0, 4.0]}
    updates = {site: {"w": np.float32(value)} for site, value in values.items()}
    shares = shares_of({"a": 100, "b": 1, "c": 1})

    assert np.array_equal(trimmed_mean(updates, shares)["w"], np.float32([3.0, 4.0]))


def test_a_large_array_is_compared_in_pieces_and_gives_the_same(monkeypatch):
    monkeypatch.setattr(arrays, "PIECE", 4)
    generator = np.random.default_rng(0)
    values = {k: generator.normal(size=(3, 7)).astype(np.float32) for k in "abcde"}
    updates = {site: {"w": each, "none": each[:0]} for site, each in values.items()}
    stacked = np.sort(np.stack(list(values.values())).astype(np.float64), axis=0)

    median = coordinate_median(updates, dict.fromkeys(values, 0.2))
    trimmed = trimmed_mean(updates, dict.fromkeys(values, 0.2))
    mean = federated_average(updates, dict.fromkeys(values, 0.2))
    assert np.allclose(mean["w"], stacked.mean(axis=0))
    assert np.array_equal(median["w"], stacked[2].astype(np.float32))
    assert np.allclose(trimmed["w"], stacked[1:4].mean(axis=0))
    assert median["none"].shape == (0, 7)
