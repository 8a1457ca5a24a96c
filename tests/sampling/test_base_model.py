"""The shipped base model, used as a newcomer would use it."""

import subprocess
import sys
from pathlib import Path

import nibabel
import pytest

from ctflow_fed.ct.codec import HaarCodec
from ctflow_fed.ct.nifti import read_nifti
from ctflow_fed.ct.report import HashingReportEncoder
from ctflow_fed.model import base_model, load_package


def _sample(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ctflow_fed", "sample", "base", "--out", str(out)]
    return subprocess.run(
        [*command, "--report", "Left pleural effusion.", *options],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_base_model_belongs_to_the_embedded_codec_and_encoder():
    provenance = load_package(base_model()).provenance

    assert provenance.codec_id == HaarCodec().codec_id
    assert provenance.encoder_id == HashingReportEncoder().encoder_id


def test_the_base_model_is_small_enough_to_ship():
    assert sum(file.stat().st_size for file in base_model().iterdir()) < 12e6


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("drawn") / "v.nii.gz"
    result = _sample(out, "--slices", "32", "--steps", "6", "--seed", "0")
    assert result.returncode == 0, result.stderr
    return out


def test_what_it_draws_has_air_around_a_body_with_lungs_in_it(drawn: Path):
    hu = read_nifti(drawn).hu

    assert hu[:, :6, :6].mean() < -950  # air in the corners
    middle = hu[12:20, 20:44, 8:56]
    assert 0.15 < (middle < -500).mean() < 0.85  # lungs on both sides of a heart


def test_what_it_draws_says_that_it_is_synthetic(drawn: Path):
    description = nibabel.load(drawn).header["descrip"].item().decode()

    assert description.startswith("SYNTHETIC")
    assert "NOT FOR DIAGNOSTIC USE" in description


def test_the_same_command_draws_the_same_bytes(drawn: Path, tmp_path: Path):
    again = tmp_path / "again.nii.gz"
    _sample(again, "--slices", "32", "--steps", "6", "--seed", "0")

    assert again.read_bytes() == drawn.read_bytes()


def test_another_suffix_is_refused_before_anything_is_drawn(tmp_path: Path):
    result = _sample(tmp_path / "v.png")

    assert result.returncode == 1
    assert "in .nii or .nii.gz" in result.stderr
