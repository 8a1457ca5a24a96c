"""Intake says of every awkward form what is true of it, to the voxel."""

import shutil

import numpy as np
import pytest

from ctflow_fed.ct.desk import IntakeSettings
from ctflow_fed.ct.dicom import read_series
from ctflow_fed.ct.intake import intake
from ctflow_fed.ct.nifti import read_nifti
from ctflow_fed.ct.phantom.awkward import CASES, write_awkward
from ctflow_fed.ct.policy import IntakePolicy
from ctflow_fed.errors import SettingsError, VolumeError
from ctflow_fed.files import read_json

INTERPOLATED = {"tilt-corrected", "uneven-resampled"}


@pytest.fixture(scope="module")
def awkward(tmp_path_factory):
    folder = tmp_path_factory.mktemp("awkward") / "cases"
    write_awkward(folder)
    return folder


def policy_of(name):
    return IntakePolicy(**CASES[name].policy, synthetic="accept")


@pytest.mark.parametrize(
    "name", [n for n, case in CASES.items() if case.verdict != "refused"]
)
def test_what_can_be_read_is_read_to_the_voxel(awkward, name):
    volume = read_series(awkward / name, policy_of(name))

    truth = read_nifti(awkward / "truth" / f"{name}.nii.gz")
    assert volume.hu.shape == truth.hu.shape
    assert np.abs(volume.affine - truth.affine).max() < 1e-3
    if name not in INTERPOLATED:
        assert np.array_equal(volume.hu, truth.hu)


@pytest.mark.parametrize("name", sorted(INTERPOLATED))
def test_what_is_straightened_is_the_truth_within_15_hu_away_from_edges(awkward, name):
    volume = read_series(awkward / name, policy_of(name))

    truth = read_nifti(awkward / "truth" / f"{name}.nii.gz").hu.astype(float)
    inner = (slice(6, -6), slice(None), slice(None))
    error = (volume.hu - truth)[inner]
    jumps = np.abs(np.diff(truth, axis=0))
    steep = np.maximum(jumps[:-1], jumps[1:])  # to either neighbour of slices 1 to -2
    smooth = steep[5:-5] < 60
    within = (truth[inner] > -990) & smooth & (volume.hu[inner] > -1000)
    assert within.sum() > 10_000
    assert np.sqrt((error[within] ** 2).mean()) < 15


@pytest.mark.parametrize("name", CASES)
def test_intake_gives_the_verdict_and_the_reason(awkward, name, tmp_path):
    case = CASES[name]
    shutil.copytree(awkward / name, tmp_path / "scans" / name)
    settings = IntakeSettings(image_size=32, policy=policy_of(name))

    account = intake(
        tmp_path / "scans", awkward / "reports.csv", tmp_path / "site", settings
    )
    (study,) = account.studies
    assert (study.name, study.account.verdict) == (name, case.verdict)
    assert case.reason in study.account.reason


def test_the_cases_are_told_beside_them(awkward):
    told = read_json(awkward / "cases.json")

    assert set(told) == set(CASES)
    assert told["gap"]["verdict"] == "refused"


def test_nothing_is_written_into_a_folder_with_files(awkward):
    with pytest.raises(SettingsError, match="new or empty"):
        write_awkward(awkward)


def test_a_missing_slice_is_found_wherever_it_is():
    """One of 200, at 100 random places; a place at an end cannot be told by anybody."""
    from ctflow_fed.ct.dicom.geometry import regular_grid

    generator = np.random.default_rng(0)
    positions = np.zeros((200, 3))
    positions[:, 2] = 0.7 * np.arange(200) + generator.uniform(-0.03, 0.03, 200)
    for missing in generator.choice(np.arange(1, 199), 100, replace=False):
        with pytest.raises(VolumeError, match="missing slice"):
            regular_grid(
                (1, 0, 0, 0, 1, 0),
                (0.7, 0.7),
                (512, 512),
                np.delete(positions, missing, axis=0),
                IntakePolicy(uneven="resample"),
            )
