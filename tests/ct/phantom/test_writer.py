"""Studies on disk: read back, resumed, joined to their reports."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from ctflow_fed.cli.phantom import command
from ctflow_fed.ct.dicom import read_series
from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.ct.nifti import read_nifti
from ctflow_fed.ct.phantom import (
    HELD_OUT,
    HOSPITALS,
    PUBLIC,
    Population,
    compose,
    write_studies,
)
from ctflow_fed.errors import MismatchError, SettingsError


@pytest.fixture
def tiny() -> Population:
    north = HOSPITALS["north"]
    return replace(north, scanner=north.scanner.resized(6, 32))


def table(folder) -> list[dict[str, str]]:
    with (folder / "reports.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_dicom_and_nifti_hold_the_same_voxels_in_the_same_places(tmp_path, tiny):
    write_studies(tmp_path / "d", tiny, 1, 0, "dicom")
    write_studies(tmp_path / "n", tiny, 1, 0, "nifti")
    series = read_series(tmp_path / "d" / "study-0001")
    nifti = read_nifti(tmp_path / "n" / "study-0001.nii.gz")
    assert np.array_equal(series.hu, nifti.hu)
    assert series.affine == pytest.approx(nifti.affine, abs=1e-4)


def test_the_table_joins_every_study_to_its_report_and_labels(tmp_path, tiny):
    write_studies(tmp_path, tiny, 3, 0, "nifti")
    rows = table(tmp_path)
    assert [row["study"] for row in rows] == ["study-0001", "study-0002", "study-0003"]
    assert list(rows[0])[:4] == ["study", "patient", "findings", "impression"]
    assert len({row["patient"] for row in rows}) == len(rows)
    assert list(rows[0])[6:] == list(FINDINGS)
    for row in rows:
        assert {row[name] for name in FINDINGS} <= {"0", "1"}
        assert len(row["findings"]) > 200


def test_a_stopped_job_goes_on_and_leaves_finished_studies_alone(tmp_path, tiny):
    write_studies(tmp_path, tiny, 2, 0, "nifti")
    first = tmp_path / "study-0001.nii.gz"
    before = first.stat().st_mtime_ns
    whole = (tmp_path / "study-0002.nii.gz").read_bytes()
    (tmp_path / "study-0002.nii.gz").unlink()
    (tmp_path / "reports.csv").unlink()
    write_studies(tmp_path, tiny, 3, 0, "nifti")
    assert first.stat().st_mtime_ns == before
    assert (tmp_path / "study-0002.nii.gz").read_bytes() == whole
    assert len(table(tmp_path)) == 3


@pytest.mark.parametrize(
    "other",
    [
        lambda tiny: (replace(tiny, name="other"), 1, 0, "nifti"),
        lambda tiny: (
            replace(tiny, scanner=tiny.scanner.resized(7, 32)),
            1,
            0,
            "nifti",
        ),
        lambda tiny: (tiny, 1, 1, "nifti"),
        lambda tiny: (tiny, 1, 0, "dicom"),
    ],
    ids=["population", "scanner", "seed", "format"],
)
def test_a_folder_made_with_other_settings_is_refused_and_left_alone(
    tmp_path, tiny, other
):
    write_studies(tmp_path, tiny, 1, 0, "nifti")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    with pytest.raises(MismatchError, match="choose another folder"):
        write_studies(tmp_path, *other(tiny))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_hospitals_have_other_patients_at_the_same_seed(tmp_path, tiny):
    write_studies(tmp_path / "a", tiny, 1, 0, "nifti")
    write_studies(tmp_path / "b", replace(tiny, name="other"), 1, 0, "nifti")
    assert table(tmp_path / "a")[0]["findings"] != table(tmp_path / "b")[0]["findings"]


@pytest.mark.parametrize("count", [0, 10000])
def test_an_impossible_count_is_refused(tmp_path, tiny, count):
    with pytest.raises(SettingsError, match="1 to 9999"):
        write_studies(tmp_path, tiny, count, 0, "nifti")


def test_the_command_writes_studies(tmp_path):
    arguments = f"--out {tmp_path} --count 1 --slices 6 --rows 32 --hospital plain"
    result = CliRunner().invoke(command, arguments.split())
    assert result.exit_code == 0
    assert len(list((tmp_path / "study-0001").glob("*.dcm"))) == 6
    assert compose({}, 0)  # the table needs no volume


def test_the_command_offers_every_population_by_its_name():
    (hospital,) = (one for one in command.params if one.name == "hospital")
    assert hospital.type.choices == (*HOSPITALS, HELD_OUT.name, PUBLIC.name)


@pytest.mark.parametrize("option", ["--count", "--slices", "--rows"])
def test_a_count_below_one_is_refused_with_a_sentence(tmp_path, option):
    result = CliRunner().invoke(command, ["--out", str(tmp_path), option, "0"])
    assert result.exit_code == 2
    assert "not in the range x>=1" in result.output
