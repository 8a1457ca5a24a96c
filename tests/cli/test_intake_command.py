"""``ctflow intake``: what stands on the screen, and the exit code."""

import hashlib

import numpy as np
import pytest
from click.testing import CliRunner

from ctflow_fed.cli import cli
from ctflow_fed.cli.intake import command
from ctflow_fed.ct.intake import IntakeSettings
from ctflow_fed.ct.nifti import write_nifti
from ctflow_fed.ct.store import LatentStore
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.errors import IncompleteError, StoreError
from ctflow_fed.files import read_json


@pytest.fixture
def arguments(tmp_path):
    hu = np.full((16, 32, 32), -700, np.int16)
    volume = CTVolume(hu, np.diag([2.0, 1.0, 1.0, 1.0])[[2, 1, 0, 3]])
    write_nifti(volume, tmp_path / "scans" / "first.nii.gz")
    (tmp_path / "scans" / "bro\x1bken.nii.gz").write_bytes(b"no scan")
    (tmp_path / "reports.csv").write_text(
        "study,findings\nfirst,Emphysema.\nbro\x1bken,Emphysema.\nthird,Nothing.\n"
    )
    options = ["--reports", tmp_path / "reports.csv", "--out", tmp_path / "site"]
    options += ["--region", "any", "--workers", "1"]
    return [str(word) for word in ("intake", tmp_path / "scans", *options)]


def run(arguments):
    return CliRunner().invoke(cli, arguments)


def test_every_study_has_its_line_and_the_sums_stand_below(arguments, tmp_path):
    result = run([*arguments, "--image-size", "32"])

    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert lines[0].split(maxsplit=3)[:3] == ["1", "bro?ken", "refused:"]
    assert lines[1].split()[:3] == ["2", "first", "taken:"]  # and its remarks
    assert lines[2].startswith("1 taken, 0 in the store already, 1 refused; 1 reports")
    assert len(LatentStore.open(tmp_path / "site")) == 1


def test_a_second_run_says_that_the_study_is_there(arguments):
    run([*arguments, "--image-size", "32"])

    result = run([*arguments, "--image-size", "32"])
    assert result.exit_code == 0
    assert "first    in the store already" in result.stdout


def test_when_nothing_is_taken_the_command_fails_but_the_account_is_shown(
    arguments, tmp_path
):
    (tmp_path / "reports.csv").write_text("study,findings\nsecond,Emphysema.\n")

    result = run(arguments)
    assert isinstance(result.exception, IncompleteError)
    assert "all 2 were refused" in str(result.exception)
    assert "no row" in result.stdout


def test_the_options_have_the_defaults_of_the_settings():
    options = {option.name: option for option in command.params}

    expected = IntakeSettings()
    assert options["image_size"].default == expected.image_size
    assert options["codec"].default == expected.codec
    assert options["encoder"].default == expected.encoder


def test_the_quality_account_is_written_on_demand(arguments, tmp_path):
    page = tmp_path / "quality.html"

    result = run([*arguments, "--image-size", "32", "--quality", str(page)])
    assert result.exit_code == 0
    assert "1 of 2 studies were taken in" in page.read_text()
    assert read_json(page.with_suffix(".json"))["verdicts"] == {
        "taken": 1,
        "refused": 1,
    }


def test_an_audit_prints_numbers_and_fails_on_a_leak(arguments, tmp_path):
    run([*arguments, "--image-size", "32"])
    log = tmp_path / "run.log"
    log.write_text("nothing of a patient")

    clean = run([*arguments, "--audit", "--logs", str(log)])
    log.write_text("took " + hashlib.sha256(b"first").hexdigest())
    leaking = run([*arguments, "--audit", "--logs", str(log)])
    assert clean.exit_code == 0
    assert "digest" in clean.stdout
    assert isinstance(leaking.exception, StoreError)
    assert "first" not in leaking.output
