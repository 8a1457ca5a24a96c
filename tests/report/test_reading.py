import pytest

from ctflow_fed.evaluation import Interval
from ctflow_fed.report.reading import reading, signed, verdict

GAIN, NOISE, LOSS = (0.05, 0.01, 0.09), (0.02, -0.03, 0.07), (-0.06, -0.1, -0.02)


def test_a_difference_is_a_gain_only_if_its_interval_lies_above_zero():
    assert [verdict(Interval(*each)) for each in (GAIN, NOISE, LOSS)] == [
        "a gain",
        "within the noise",
        "a loss",
    ]


@pytest.mark.parametrize(
    ("over_real", "over_copies", "conclusion"),
    [
        (GAIN, GAIN, "agree on a gain"),
        (GAIN, NOISE, "Only one of the two comparisons"),
        (NOISE, GAIN, "Only one of the two comparisons"),
        (NOISE, NOISE, "shows neither"),
        (LOSS, NOISE, "shows a loss"),
        (GAIN, LOSS, "shows a loss"),
    ],
)
def test_the_conclusion_follows_from_both_comparisons(
    utility_of, over_real, over_copies, conclusion
):
    assert conclusion in reading(utility_of(over_real, over_copies))[-1]


def test_a_classifier_that_has_learned_nothing_is_called_that(utility_of):
    assert "not clearly better" in reading(utility_of(NOISE, NOISE, real=0.55))[0]
    assert "room to improve" in reading(utility_of(NOISE, NOISE, real=0.7))[0]


def test_noise_is_called_noise_and_a_gain_a_gain(utility_of):
    _, over_real, over_copies, _ = reading(utility_of(NOISE, GAIN))

    assert "+0.020 (95 % interval \N{MINUS SIGN}0.030 to +0.070)" in over_real
    assert "within the noise" in over_real
    assert "in this run it is a gain" in over_copies


def test_an_interval_is_said_to_cover_what_it_covers(utility_of):
    for said in reading(utility_of(GAIN, LOSS))[1:3]:
        assert "test patients and of 3 sets of first weights" in said
        assert "not the choice of the training studies" in said


def test_a_difference_is_written_with_its_sign():
    assert signed(0.02) == "+0.020"
    assert signed(-0.02) == "\N{MINUS SIGN}0.020"
