import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.errors import MismatchError, SettingsError, StoreError
from ctflow_fed.evaluation import (
    UtilityResult,
    UtilitySettings,
    measure_utility,
)

SMALL = UtilitySettings(
    shape=(24, 24, 24), steps=40, batch=4, repeats=2, least_cases=3, draws=200
)


@pytest.fixture(scope="module")
def result(studies):
    return measure_utility(
        studies("real", 8),
        studies("synthetic", 6, synthetic=True),
        studies("test", 16),
        SMALL,
    )


def test_a_finding_that_is_easy_to_see_is_learned(result):
    assert result.arm("real").auroc.value > 0.9
    assert result.arm("synthetic_added").auroc.value > 0.9
    assert result.arm("synthetic_added").synthetic == 6


def test_only_findings_with_enough_cases_are_scored(result):
    assert result.cases == {"Consolidation": 8}
    assert result.unscored == tuple(n for n in FINDINGS if n != "Consolidation")
    assert [row.finding for row in result.arms[0].findings] == ["Consolidation"]


def test_the_training_items_with_a_finding_are_counted_in_every_arm(result):
    trained = {arm.name: arm.findings[0].trained for arm in result.arms}

    assert trained == {"real": 4, "duplicated": 7, "synthetic_added": 7}


def test_the_differences_are_those_of_the_arms(result):
    added = result.arm("synthetic_added").auroc.value
    for reference in ("real", "duplicated"):
        difference = result.against(reference)
        expected = added - result.arm(reference).auroc.value

        assert difference.value == pytest.approx(expected)
        assert difference.low <= difference.high


def test_the_area_of_an_arm_is_the_mean_of_its_repeats(result):
    for arm in result.arms:
        assert np.mean(arm.auroc_of_repeats) == pytest.approx(arm.auroc.value)


def test_a_result_is_the_same_after_it_was_saved(result):
    saved = json.loads(json.dumps(asdict(result)))

    assert UtilityResult.from_json(saved) == result
    for broken in ({}, {**saved, "arms": [{}]}):
        with pytest.raises(StoreError):
            UtilityResult.from_json(broken)


def test_the_same_seed_gives_the_same_result(studies):
    quick = replace(SMALL, steps=2, repeats=1)
    items = studies("real", 4), studies("synthetic", 2, synthetic=True)

    first, again = (measure_utility(*items, studies("test", 8), quick) for _ in "ab")

    assert [a.auroc for a in first.arms] == [a.auroc for a in again.arms]
    assert first.comparisons == again.comparisons


def test_a_test_study_that_was_trained_on_is_refused(studies):
    real = studies("real", 4)

    with pytest.raises(MismatchError, match="also trained on"):
        measure_utility(real, studies("more", 2), [*studies("test", 2), real[0]], SMALL)


def test_another_study_of_a_patient_that_was_trained_on_is_refused(studies):
    real, test = (
        [{**item, "patient": "p1"} for item in studies(name, 2)]
        for name in ("real", "test")
    )

    with pytest.raises(MismatchError, match="other patients"):
        measure_utility(real, studies("more", 2), test, SMALL)


def test_a_synthetic_volume_in_the_test_is_refused(studies):
    with pytest.raises(MismatchError, match="real studies only"):
        measure_utility(
            studies("real", 2),
            studies("more", 2),
            studies("synthetic", 2, synthetic=True),
            SMALL,
        )


def test_a_test_without_enough_cases_is_refused(studies):
    with pytest.raises(SettingsError, match="no finding has 3"):
        measure_utility(
            studies("real", 2), studies("more", 2), studies("test", 4), SMALL
        )


def test_an_arm_without_synthetic_items_is_refused(studies):
    with pytest.raises(SettingsError, match="real and synthetic"):
        measure_utility(studies("real", 2), [], studies("test", 8), SMALL)


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 0}, {"repeats": 0}, {"learning_rate": 0.0}, {"shape": (8, 8, 8)}],
)
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(SettingsError):
        UtilitySettings(**wrong)
