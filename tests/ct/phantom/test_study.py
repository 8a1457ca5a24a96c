"""The patient: the same at any resolution, with any findings, on every run."""

import time

import numpy as np
import pytest

from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.ct.phantom import Scanner, compose, draw
from ctflow_fed.ct.phantom.patient import patient_of
from ctflow_fed.errors import SettingsError

SMALL = Scanner().resized(32, 64)
CLEAR = Scanner(noise_hu=0, sharpness=1)


def halved(hu: np.ndarray) -> np.ndarray:
    """The mean of every two voxels along each axis."""
    slices, rows, cols = hu.shape
    blocks = hu.reshape(slices // 2, 2, rows // 2, 2, cols // 2, 2)
    return blocks.mean((1, 3, 5))


def test_the_same_seed_draws_the_same_study():
    first, second = (draw(5, ["Lung nodule"], scanner=SMALL) for _ in range(2))
    assert np.array_equal(first.volume.hu, second.volume.hu)
    assert first.findings == second.findings


def test_another_seed_draws_another_patient():
    first, second = (draw(seed, scanner=SMALL) for seed in (1, 2))
    assert np.abs(first.volume.hu - second.volume.hu.astype(float)).mean() > 20


def test_low_resolution_shows_the_same_patient_as_high_resolution():
    findings = ["Pleural effusion", "Consolidation", "Cardiomegaly"]
    low = draw(3, findings, scanner=CLEAR.resized(32, 64)).volume.hu
    high = draw(3, findings, scanner=CLEAR.resized(64, 128)).volume.hu
    difference = np.abs(halved(high) - low)
    assert difference.mean() < 25
    assert np.corrcoef(halved(high).ravel(), low.ravel())[0, 1] > 0.99


def test_what_a_finding_does_not_touch_stays_as_it_is():
    plain = draw(4, scanner=SMALL).volume.hu
    nodule = draw(4, ["Lung nodule"], scanner=SMALL)
    far = ~nodule.masks["Lung nodule"]
    assert (plain != nodule.volume.hu)[far].mean() < 0.01


def test_all_findings_together_can_be_drawn():
    study = draw(6, FINDINGS, scanner=SMALL)
    assert set(study.masks) == set(FINDINGS)
    assert all(study.labels.values())
    assert all(mask.any() for mask in study.masks.values())


def test_tissues_have_their_hounsfield_units():
    hu = draw(0, scanner=CLEAR.resized(60, 128)).volume.hu
    assert (hu[:, :8] == -1024).all()  # air before the patient
    assert 0.08 < ((hu > -950) & (hu < -780)).mean() < 0.35  # lung
    assert ((hu > -130) & (hu < -70)).mean() > 0.05  # fat
    assert ((hu > 30) & (hu < 80)).mean() > 0.05  # muscle and blood
    assert ((hu > 250) & (hu < 900)).mean() > 0.005  # bone


def test_the_liver_lies_on_the_right_and_the_stomach_on_the_left():
    hu = draw(5, scanner=CLEAR).volume.hu
    low = hu[3:9, 35:95]
    right, left = low[:, :, 20:55], low[:, :, 73:108]
    assert ((right > 40) & (right < 160)).mean() > ((left > 40) & (left < 160)).mean()


def test_the_heart_points_to_the_left():
    study = draw(1, ["Cardiomegaly"], scanner=SMALL)
    columns = np.nonzero(study.masks["Cardiomegaly"])[2]
    assert columns.mean() > 32


def test_the_report_of_a_study_is_the_one_that_compose_makes():
    study = draw(9, ["Lung nodule", "Emphysema"], scanner=SMALL)
    assert (study.findings, study.impression) == compose(study.labels, 9)


def test_age_and_sex_vary():
    patients = [patient_of(seed) for seed in range(40)]
    assert {patient.sex for patient in patients} == {"F", "M"}
    assert max(p.age for p in patients) - min(p.age for p in patients) > 30


def test_a_scan_that_misses_a_finding_still_reports_it():
    study = draw(0, ["Pulmonary fibrotic sequela"], scanner=Scanner(slices=2, rows=64))
    assert study.labels["Pulmonary fibrotic sequela"] == 1
    assert not study.masks["Pulmonary fibrotic sequela"].any()


def test_an_unknown_finding_is_refused():
    with pytest.raises(SettingsError, match="18 of CT-RATE"):
        draw(0, ["Pneumothorax"], scanner=SMALL)


def test_a_small_study_is_drawn_at_once():
    start = time.process_time()
    draw(0, scanner=SMALL)
    assert time.process_time() - start < 2
