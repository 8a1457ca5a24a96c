"""The intake does not learn from what a generator has drawn, unless it is told to."""

import csv
import json

import numpy as np
import pytest

from ctflow_fed.ct.dicom import SeriesTags, write_series
from ctflow_fed.ct.intake import IntakeSettings, intake
from ctflow_fed.ct.nifti import description_of, write_nifti
from ctflow_fed.ct.policy import IntakePolicy
from ctflow_fed.ct.synthetic import is_marked_synthetic
from ctflow_fed.ct.volume import CTVolume


def volume(seed=0):
    noise = np.random.default_rng(seed).integers(-1000, 400, (20, 32, 32))
    affine = np.array([[0, 0, -8, 0], [0, -8, 0, 0], [5, 0, 0, 0], [0, 0, 0, 1.0]])
    return CTVolume(noise.astype(np.int16), affine)


@pytest.fixture
def source(tmp_path):
    """One real study and three that say that they are synthetic, each in its way."""
    folder = tmp_path / "scans"
    write_nifti(volume(0), folder / "real.nii.gz")
    write_nifti(volume(1), folder / "said.nii.gz", description="SYNTHETIC - NOT FOR")
    write_nifti(volume(2), folder / "beside.nii.gz")
    (folder / "beside.json").write_text(json.dumps({"synthetic": True}))
    write_series(volume(3), folder / "series", seed=0, tags=SeriesTags("SYN-1"))
    with (tmp_path / "reports.csv").open("w", newline="") as file:
        rows = [[name, "Clear lungs."] for name in ("real", "said", "beside", "series")]
        csv.writer(file).writerows([("study", "findings"), *rows])
    return folder


def take(source, **choices):
    policy = IntakePolicy(region="any", **choices)
    settings = IntakeSettings(image_size=32, policy=policy)
    reports = source.parent / "reports.csv"
    return intake(source, reports, source.parent / "site", settings)


def test_synthetic_volumes_are_refused_and_the_real_one_is_taken(source):
    account = take(source)

    assert [study.name for study in account.taken] == ["real"]
    said = {study.reason for study in account.refused if "synthetic" in study.reason}
    assert len(said) == 1
    assert "or let the policy accept it" in said.pop()


def test_the_policy_may_accept_them(source):
    account = take(source, synthetic="accept")

    assert {study.name for study in account.taken} == {
        "real",
        "said",
        "beside",
        "series",
    }


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        ("a.nii.gz", None),
        ("a.nii.gz", {"synthetic": "no"}),
        ("a.nii.gz", [1]),
        ("a.b.nii.gz", None),
    ],
)
def test_what_does_not_say_so_is_no_synthetic_volume(tmp_path, name, beside):
    write_nifti(volume(), tmp_path / name, description="not synthetic")
    (tmp_path / "a.json").write_text(json.dumps(beside or {}))

    assert not is_marked_synthetic(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"\x1f\x8bbroken", b"n+1" * 200])
def test_a_broken_file_says_nothing(tmp_path, content):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(content)
    (tmp_path / "a.json").write_bytes(content)

    assert description_of(path) == ""
    assert not is_marked_synthetic(path)
