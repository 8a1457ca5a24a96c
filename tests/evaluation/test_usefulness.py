"""A trial's scores come to the right verdicts."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_calibration_error

from ctflow_fed.evaluation import UtilitySettings
from ctflow_fed.evaluation.arms import EVERY_ARM
from ctflow_fed.evaluation.usefulness import Trial, calibration_error, trial_figures

SETTINGS = UtilitySettings(repeats=2, draws=300)
STUDIES, FINDINGS = 160, ("Emphysema", "Cardiomegaly", "Lung nodule")


def trial(*, worse=(), groups=None, **skill):
    """Return a trial in which arms differ in how well they tell findings apart."""
    rng = np.random.default_rng(0)
    truth = rng.random((STUDIES, len(FINDINGS))) < 0.4
    shared = rng.normal(size=truth.shape)
    scores = {}
    for arm in EVERY_ARM:
        signal = skill.get(arm, 1.0) * np.ones(len(FINDINGS))
        if arm == "synthetic_added":
            signal[[FINDINGS.index(name) for name in worse]] = 0
        noise = rng.normal(scale=0.3, size=(2, *truth.shape))
        scores[arm] = 1 / (1 + np.exp(-(2 * truth - 1) * signal - shared - noise))
    return Trial(
        scores=scores,
        truth=truth,
        findings=FINDINGS,
        patients=[str(i) for i in range(STUDIES)],
        groups=groups or {},
        settings=SETTINGS,
    )


def by_name(made):
    return {(figure.name, figure.part): figure for figure in trial_figures(made)}


def test_a_gain_over_every_arm_passes():
    found = by_name(trial(synthetic_added=2.0))

    for reference in ("real", "duplicated", "augmented"):
        assert found["gain", f"over {reference}"].verdict == "pass"
    assert found["tstr_ratio", ""].verdict == "pass"


def test_a_gain_over_real_alone_is_no_gain_over_copies():
    found = by_name(trial(synthetic_added=1.0, duplicated=1.0, real=0.3))

    assert found["gain", "over real"].verdict == "pass"
    assert found["gain", "over duplicated"].verdict == "fail"


def test_synthetic_volumes_that_teach_nothing_fail_alone():
    found = by_name(trial(synthetic=0.0))

    assert found["tstr_ratio", ""].verdict == "fail"
    assert found["macro_auroc", "synthetic"].verdict == "fail"


def test_nothing_is_compared_with_real_studies_that_teach_nothing():
    found = by_name(trial(real=-3.0))

    assert found["tstr_ratio", ""].verdict == "not measured"


def test_the_finding_that_loses_is_named():
    found = by_name(trial(worse=["Cardiomegaly"]))

    lost = found["finding_gain", "Cardiomegaly"]
    assert lost.verdict == "fail"
    assert lost.value.high < 0
    assert "after Holm over 3" in lost.method


def test_a_group_that_loses_is_named():
    women = np.arange(STUDIES) % 2 == 0
    made = trial(groups={"sex F": women, "sex M": ~women, "age 90+": women & False})
    made.scores["synthetic_added"][:, women] = 0.5

    found = by_name(made)

    assert found["group_gain", "sex F"].verdict == "fail"
    assert found["group_gain", "sex M"].verdict == "pass"
    assert found["group_gain", "age 90+"].verdict == "not measured"


def test_the_calibration_error_is_that_of_torchmetrics():
    rng = np.random.default_rng(0)
    scores, truth = rng.random(500), rng.random(500) < 0.3

    expected = binary_calibration_error(
        torch.from_numpy(scores), torch.from_numpy(truth).int(), n_bins=15
    )

    found = calibration_error(scores, truth, np.ones(500))
    assert found == pytest.approx(float(expected), abs=1e-6)


def test_overconfidence_is_seen():
    made = trial()
    made.scores["synthetic_added"][:] = made.scores["synthetic_added"].round()

    assert by_name(made)["calibration_error", "synthetic_added"].verdict == "fail"
