import numpy as np
import pytest

from ctflow_fed.evaluation.scores import (
    Draws,
    Interval,
    areas,
    draw_patients,
    interval,
    resampled_auroc,
)


def table(seed, *, repeats=2, studies=40, findings=3):
    rng = np.random.default_rng(seed)
    truth = rng.random((studies, findings)) < 0.4
    scores = rng.random((repeats, studies, findings)) + 0.3 * truth
    return scores / 1.3, truth


def once(studies, repeats):
    return Draws(np.ones((1, studies)), np.arange(repeats)[None])


def test_a_perfect_order_has_an_area_of_one_and_its_reverse_of_zero():
    truth = np.array([[True], [True], [False], [False]])
    scores = np.array([[0.9, 0.8, 0.2, 0.1]])[..., None]

    auroc, auprc = areas(scores, truth)

    assert auroc == pytest.approx([1.0])
    assert auprc == pytest.approx([1.0])
    assert areas(1 - scores, truth)[0] == pytest.approx([0.0])


def test_the_draw_that_takes_every_study_once_gives_the_area_of_torchmetrics():
    scores, truth = table(0)

    macro = resampled_auroc(scores, truth, once(len(truth), len(scores)))

    assert macro == pytest.approx([areas(scores, truth)[0].mean()])


def test_a_tie_counts_half():
    scores = np.full((1, 4, 1), 0.5)
    truth = np.array([[True], [False], [False], [True]])

    assert resampled_auroc(scores, truth, once(4, 1)) == pytest.approx([0.5])


def test_a_study_drawn_twice_weighs_as_much_as_two_equal_studies():
    scores, truth = table(1, repeats=1)
    twice = Draws(np.ones((1, len(truth))), np.zeros((1, 1), int))
    twice.weights[0, :5] = 2

    copied = resampled_auroc(
        np.concatenate([scores, scores[:, :5]], axis=1),
        np.concatenate([truth, truth[:5]]),
        once(len(truth) + 5, 1),
    )

    assert resampled_auroc(scores, truth, twice) == pytest.approx(copied)


def test_studies_of_one_patient_are_drawn_together():
    draws = draw_patients(["a", "b", "a", "c"], repeats=2, draws=50, seed=0)

    assert (draws.weights[:, 0] == draws.weights[:, 2]).all()
    patients = draws.weights[:, [0, 1, 3]]
    assert (patients.sum(axis=1) == 3).all()
    assert patients.std() > 0


def test_the_same_seed_draws_the_same_patients():
    first, again, other = (
        draw_patients(list("abcd"), repeats=3, draws=9, seed=seed) for seed in (1, 1, 2)
    )

    assert (first.weights == again.weights).all()
    assert (first.repeats == again.repeats).all()
    assert (first.weights != other.weights).any()


def test_a_finding_that_a_draw_lost_is_left_out_of_that_draw():
    scores, truth = table(2, repeats=1, findings=2)
    weights = np.stack([np.ones(len(truth)), (~truth[:, 0]).astype(float)])
    draws = Draws(weights, np.zeros((2, 1), int))

    macro = resampled_auroc(scores, truth, draws)

    alone = resampled_auroc(scores[:, :, 1:], truth[:, 1:], draws)
    assert macro[1] == pytest.approx(alone[1])
    assert macro[0] != pytest.approx(alone[0])


def test_the_interval_holds_95_of_100_draws():
    result = interval(0.5, np.linspace(0, 1, 1001))

    assert (result.low, result.high) == pytest.approx((0.025, 0.975))
    assert not result.holds_zero
    assert Interval(0.1, -0.1, 0.3).holds_zero
