"""Age and sex: a decade and a letter, whatever a header or a table holds."""

import json

import numpy as np
import pydicom
import pytest

from ctflow_fed.ct.demographics import UNKNOWN, Demographics
from ctflow_fed.ct.dicom import SeriesTags, write_series
from ctflow_fed.ct.intake import IntakeSettings, intake
from ctflow_fed.ct.policy import STRICT
from ctflow_fed.ct.record import StudyRecord
from ctflow_fed.ct.scan import scans_in
from ctflow_fed.ct.store import LatentStore
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.errors import StoreError

SMALL = IntakeSettings(image_size=32, policy=STRICT)  # no chest


def volume():
    hu = np.full((16, 24, 24), -1000, np.int16)
    hu[:, 8:16, 8:16] = 40
    return CTVolume(hu, np.diag([2.5, -1.5, -1.5, 1.0])[[2, 1, 0, 3]])


@pytest.mark.parametrize(
    ("age", "band"),
    [
        ("060Y", "60-69"),
        ("69", "60-69"),
        ("63.0", "60-69"),
        ("6M", "0-9"),
        ("130M", "10-19"),
        ("003W", "0-9"),
        ("090Y", "90+"),
        ("104y", "90+"),
        ("121Y", ""),
        ("999Y", ""),
        ("", ""),
        ("Y", ""),
        ("-5", ""),
        ("nan", ""),
        ("6 years", ""),
        ("1e1", ""),
        ("0060Y", ""),
        ("060Y\\070Y", ""),
        ("\u0666\u0660Y", ""),
        ("60Y; Anna Muster", ""),
    ],
)
def test_an_age_becomes_a_decade_and_anything_else_is_not_known(age, band):
    assert Demographics.of(age, "").age_band == band


@pytest.mark.parametrize(
    ("sex", "kept"),
    [("F", "F"), (" m ", "M"), ("Other", "O"), ("female", "F")]
    + [(text, "") for text in ("", "U", "MF", "M\\F", "man", "Muster, Anna")],
)
def test_a_sex_becomes_a_letter_and_anything_else_is_not_known(sex, kept):
    assert Demographics.of("", sex).sex == kept


def test_where_sources_differ_it_is_not_known():
    one, other = Demographics("60-69", "F"), Demographics("70-79", "")

    assert Demographics.agreed({one, other}) == Demographics("", "F")
    assert Demographics.agreed({one, UNKNOWN}) == one
    assert Demographics.agreed(set()) == UNKNOWN


@pytest.fixture
def folder(tmp_path):
    tags = SeriesTags("SYN-1", sex="F", age=63)
    write_series(volume(), tmp_path / "scans" / "one", seed=0, tags=tags)
    return tmp_path / "scans" / "one"


def hostile(path, age, sex):
    """Write what no tool writes: values of any bytes."""
    dataset = pydicom.dcmread(path)
    with pydicom.config.disable_value_validation():
        dataset.PatientAge, dataset.PatientSex = age, sex
        dataset.save_as(path)


def test_the_header_tells_them_unless_its_slices_differ(folder):
    (scan,) = scans_in(folder)
    hostile(folder / "00001.dcm", "099Y", "F")
    (mixed,) = scans_in(folder)

    assert scan.demographics == Demographics("60-69", "F")
    assert mixed.demographics == Demographics("", "F")


@pytest.mark.parametrize("age", ["999Y", "", "Anna Muster", "060Y\\061Y", "\xff" * 90])
def test_a_hostile_age_costs_no_study_and_is_not_copied(folder, tmp_path, age):
    for path in folder.iterdir():
        hostile(path, age, "Muster^Anna")
    reports = tmp_path / "reports.csv"
    reports.write_text("study,report\none,A nodule.\n")

    account = intake(tmp_path / "scans", reports, tmp_path / "site", SMALL)
    (record,) = LatentStore.open(tmp_path / "site").records
    assert len(account.taken) == 1
    assert (record.age_band, record.sex) == ("", "")
    assert b"Muster" not in (tmp_path / "site" / "index.jsonl").read_bytes()


def test_the_table_tells_them_where_the_header_does_not(tmp_path):
    write_series(volume(), tmp_path / "a" / "one", seed=0, tags=SeriesTags("SYN-1"))
    reports = tmp_path / "reports.csv"
    reports.write_text("study,report,age,sex\none,A nodule.,47,male\n")

    intake(tmp_path / "a", reports, tmp_path / "site", SMALL)
    (record,) = LatentStore.open(tmp_path / "site").records
    assert (record.age_band, record.sex) == ("40-49", "M")


def record_with(**values):
    line = {
        "study_id": "a",
        "slices": 16,
        "spacing": [2.5, 1, 1],
        "labels": {},
        "flags": [],
        "sha256": "0" * 64,
        **values,
    }
    return StudyRecord.from_json(json.loads(json.dumps(line)))


def test_an_index_without_them_is_read_and_one_with_an_age_is_refused():
    assert record_with().age_band == ""
    assert record_with(age_band="60-69", sex="M").sex == "M"

    for told in ({"age_band": "63"}, {"sex": "Muster"}, {"age_band": 63}):
        with pytest.raises(StoreError, match="a decade and a sex at most"):
            record_with(**told)
