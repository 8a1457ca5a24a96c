"""DeLong's test and Holm's correction, against what is known of them."""

import numpy as np
import pytest
from scipy.stats import kstest

from ctflow_fed.evaluation.significance import delong, holm

rng = np.random.default_rng(0)


def two_readers(studies, rng, *, better=0.0):
    """Return scores of two readers, correlated, the second better by as much."""
    present = np.arange(studies) % 3 == 0
    truth, shared = present * 1.0, rng.normal(size=studies)
    first = truth + shared + rng.normal(size=studies)
    second = truth * (1 + better) + shared + rng.normal(size=studies)
    return first, second, present


def test_the_error_is_that_of_the_bootstrap():
    first, second, present = two_readers(150, rng)
    drawn = []
    for _ in range(600):
        chosen = np.concatenate(
            [
                rng.choice(np.flatnonzero(present == side), (present == side).sum())
                for side in (True, False)
            ]
        )
        parts = first[chosen], second[chosen], present[chosen]
        drawn.append(delong(*parts).value)

    assert delong(first, second, present).error == pytest.approx(np.std(drawn), rel=0.1)


def test_p_values_of_equal_readers_are_uniform():
    p = [delong(*two_readers(90, rng)).p for _ in range(400)]

    assert kstest(p, "uniform").pvalue > 0.01


def test_a_better_reader_is_told_from_chance():
    first, second, present = two_readers(600, rng, better=1.0)

    found = delong(second, first, present)

    assert found.value > 0.1
    assert found.p < 1e-3
    assert delong(first, second, present).value == pytest.approx(-found.value)


def test_a_reader_does_not_differ_from_itself():
    first, _, present = two_readers(30, rng)

    assert delong(first, first, present).p == 1.0


def test_one_of_two_differences_is_certain_without_spread():
    present = np.array([True, True, False, False])
    right = np.array([1.0, 1.0, 0.0, 0.0])

    assert delong(right, -right, present).p == 0.0


def test_holm_multiplies_each_p_by_the_tests_that_are_left():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
