"""Leaky scores are told from those that leak nothing."""

import numpy as np
import pytest

from ctflow_fed.errors import SettingsError
from ctflow_fed.evaluation.exposure import (
    audit_figure,
    membership_area,
    membership_figures,
)

rng = np.random.default_rng(0)


def scores(count, shift=0.0):
    return {"loss": rng.normal(shift, 1, count)}


def test_the_interval_of_the_area_covers_the_truth():
    truth = 0.638  # of normal scores half a deviation apart
    covered = [
        (
            found := membership_area(
                rng.normal(0.5, 1, 40), rng.normal(0, 1, 40), seed=0
            )
        ).low
        <= truth
        <= found.high
        for _ in range(100)
    ]

    assert 0.9 <= np.mean(covered) <= 0.99


def test_scores_that_tell_members_apart_fail():
    area, rate = membership_figures(scores(60, 3.0), scores(60), seed=0)

    assert (area.verdict, rate.verdict) == ("fail", "fail")
    assert area.value.low > 0.9


def test_scores_that_tell_nothing_pass():
    area, rate = membership_figures(scores(200), scores(200), seed=0)

    assert (area.verdict, rate.verdict) == ("pass", "pass")


def test_one_percent_of_false_positives_needs_a_thousand_others():
    _, few = membership_figures(scores(50), scores(999), seed=0)
    _, many = membership_figures(scores(50), scores(1000), seed=0)

    assert "10%" in few.convention
    assert "at 1%" in many.convention


def test_too_few_patients_are_refused():
    with pytest.raises(SettingsError, match="20 or more"):
        list(membership_figures(scores(19), scores(50), seed=0))


@pytest.mark.parametrize(("shift", "verdict"), [(4.0, "fail"), (0.0, "pass")])
def test_a_promise_is_refuted_by_scores_that_break_it(shift, verdict):
    found = audit_figure(
        scores(200, shift), scores(200), tossed=True, epsilon=1.0, delta=1e-5
    )

    assert found.verdict == verdict
    assert (found.value.value > 1.0) == (verdict == "fail")


def test_the_audit_needs_the_toss_of_a_coin():
    found = audit_figure(scores(50), scores(50), tossed=False, epsilon=1.0, delta=1e-5)

    assert found.verdict == "not measured"


def test_without_a_promise_nothing_is_refuted():
    found = audit_figure(
        scores(50, 4.0), scores(50), tossed=True, epsilon=None, delta=None
    )

    assert found.verdict == "not measured"
    assert found.value.value > 1.0
