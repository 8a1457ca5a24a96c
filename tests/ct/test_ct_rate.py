"""CT-RATE as it is: its folders, its three tables, its first and its mended release."""

import csv

import nibabel as nib
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from ctflow_fed.cli import cli
from ctflow_fed.ct.account import read_account
from ctflow_fed.ct.acquisition import Acquisition
from ctflow_fed.ct.codec import HaarCodec
from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.ct.nifti import read_nifti, write_nifti
from ctflow_fed.ct.phantom import Scanner, draw
from ctflow_fed.ct.store import LatentStore
from ctflow_fed.ct.tables import Tables
from ctflow_fed.errors import ReportTableError, VolumeError

SCANNER = Scanner(slices=20, rows=40, slice_mm=15.0, noise_hu=5.0)
UPRIGHT = "[1.0, 0.0, 0.0, 0.0, 1.0, 0.0]"
TEXT = "Heart size is normal. There is a nodule in the left lung."


@pytest.fixture(scope="module")
def truth():
    return {patient: draw(patient, scanner=SCANNER).volume for patient in (1, 2)}


def as_first_released(volume, path, intercept):
    """Write stored values under a header that says nothing of where they lie."""
    stored = (volume.hu.astype(np.int32) - intercept).astype(np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(stored.transpose(2, 1, 0), None).to_filename(path)


def metadata_row(name, intercept, **changed):
    return {
        "VolumeName": name,
        "Manufacturer": "Siemens",
        "SeriesDescription": "Thorax",
        "PatientSex": "F",
        "PatientAge": "063Y",
        "ImageOrientationPatient": UPRIGHT,
        "RescaleIntercept": intercept,
        "RescaleSlope": "1.0",
        "NumberofSlices": 20,
        "XYSpacing": f"[{SCANNER.pixel_mm}, {SCANNER.pixel_mm}]",
        "ZSpacing": SCANNER.slice_mm,
        **changed,
    }


def write_csv(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return path


NAMES = ("train_1_a_1.nii.gz", "train_1_a_2.nii.gz", "train_2_b_1.nii.gz")


@pytest.fixture
def data_set(tmp_path, truth):
    """Two reconstructions as in the first release, and one with a mended header."""
    train = tmp_path / "dataset" / "train"
    first, second, mended = (
        train / name.rsplit("_", 2)[0] / name.rsplit("_", 1)[0] / name for name in NAMES
    )
    as_first_released(truth[1], first, -1024)
    as_first_released(truth[1], second, -8192)
    write_nifti(truth[2], mended)
    intercepts = (-1024, -8192, -1024)
    rows = [metadata_row(*each) for each in zip(NAMES, intercepts, strict=True)]
    write_csv(tmp_path / "metadata.csv", rows)
    row = {"ClinicalInformation_EN": "", "Technique_EN": "", "Findings_EN": TEXT}
    reports = [
        {"VolumeName": each, **row, "Impressions_EN": "Nodule."} for each in NAMES
    ]
    write_csv(tmp_path / "reports.csv", reports)
    marked = dict.fromkeys(FINDINGS, 0) | {"Emphysema": 1}
    write_csv(tmp_path / "labels.csv", [{"VolumeName": n, **marked} for n in NAMES])
    return train


def take(train, *options):
    folder = train.parents[1]
    words = ["intake", train, "--reports", folder / "reports.csv", *options]
    words += ["--out", folder / "site", "--image-size", "32", "--workers", "1"]
    return CliRunner().invoke(cli, [*map(str, words)], catch_exceptions=False)


def latents_of(volume):
    return HaarCodec().encode(torch.from_numpy(volume.squared(32).hu).float()).half()


def test_a_data_set_in_its_own_layout_is_taken_to_the_voxel(data_set, truth):
    folder = data_set.parents[1]
    tables = ["--metadata", folder / "metadata.csv", "--labels", folder / "labels.csv"]
    result = take(data_set, *tables)

    store = LatentStore.open(folder / "site")
    assert result.exit_code == 0
    assert len(store) == 3
    patients = {}
    for record in store.records:
        patients.setdefault(record.patient, []).append(record)
        assert record.spacing == pytest.approx((15.0, 12.0, 12.0))
        assert (record.age_band, record.sex) == ("60-69", "F")
        assert [name for name, label in record.labels.items() if label] == ["Emphysema"]
    (mended,), first = sorted(patients.values(), key=len)
    for record, patient in ((mended, 2), (first[0], 1), (first[1], 1)):
        stored = store.slices(record.study_id, 0, 20)
        assert torch.equal(stored, latents_of(truth[patient]).float())


def test_what_the_table_changed_stands_in_the_account(data_set):
    take(data_set, "--metadata", data_set.parents[1] / "metadata.csv")

    reasons = [
        each.reason for each in read_account(data_set.parents[1] / "site").values()
    ]
    assert sum("placed by the table of metadata" in each for each in reasons) == 2
    assert sum("rescaled to HU by the table" in each for each in reasons) == 2


def test_without_its_metadata_the_first_release_is_refused(data_set):
    result = take(data_set)

    assert "1 taken" in result.stdout
    assert result.stdout.count("says where it lies") == 2


def test_a_volume_without_a_row_in_a_table_is_refused(data_set):
    folder = data_set.parents[1]
    write_csv(folder / "metadata.csv", [metadata_row(NAMES[0], -1024)])
    result = take(data_set, "--metadata", folder / "metadata.csv")

    assert result.stdout.count("the table of metadata has no row of it") == 2


@pytest.mark.parametrize(
    "changed",
    [
        {"XYSpacing": "[0.7]"},
        {"XYSpacing": "[0.7, nan]"},
        {"XYSpacing": "__import__('os')"},
        {"ZSpacing": "0"},
        {"ZSpacing": ""},
        {"RescaleSlope": "-1"},
        {"RescaleIntercept": "1e9"},
        {"ImageOrientationPatient": "[1, 0, 0, 1, 0, 0]"},
    ],
)
def test_a_row_that_is_no_acquisition_costs_its_study_alone(tmp_path, changed):
    rows = [metadata_row("a", -1024, **changed), metadata_row("b", -1024)]
    reports = tmp_path / "reports.csv"
    reports.write_text("study,report\na,Nodule.\nb,Nodule.\n")
    tables = Tables(reports, metadata=write_csv(tmp_path / "metadata.csv", rows))

    joined = tables.read()
    assert "got values that are none" in joined["a"].problem
    assert joined["b"].acquisition == Acquisition(
        (9.6, 9.6, 15.0), (1, 0, 0, 0, 1, 0), 1.0, -1024.0
    )


def test_a_table_of_labels_with_other_than_0_and_1_costs_its_study_alone(tmp_path):
    reports = tmp_path / "reports.csv"
    reports.write_text("study,report\na,Nodule.\nb,Nodule.\n")
    rows = [
        {"study": study, **dict.fromkeys(FINDINGS, label)}
        for study, label in (("a", "-1"), ("b", "1.0"))
    ]

    joined = Tables(reports, labels=write_csv(tmp_path / "labels.csv", rows)).read()
    assert joined["a"].problem == "a label in its row is neither 0 nor 1"
    assert set(joined["b"].labels.values()) == {1}


def test_a_table_without_its_columns_is_refused(tmp_path):
    reports = tmp_path / "reports.csv"
    reports.write_text("study,report\na,Nodule.\n")

    with pytest.raises(ReportTableError, match="XYSpacing"):
        Tables(reports, metadata=reports).read()
    with pytest.raises(ReportTableError, match="Emphysema"):
        Tables(reports, labels=reports).read()


def test_a_turned_scan_is_placed_as_the_table_says(tmp_path, truth):
    """Rows that run to the front and columns to the right: a patient lying prone."""
    prone = truth[1].hu[:, ::-1, ::-1].astype(np.int16).transpose(2, 1, 0)
    nib.Nifti1Image(prone, None).to_filename(tmp_path / "v.nii")
    steps = (SCANNER.pixel_mm, SCANNER.pixel_mm, SCANNER.slice_mm)

    read = read_nifti(
        tmp_path / "v.nii", Acquisition(steps, (-1, 0, 0, 0, -1, 0), 1, 0)
    )
    assert np.array_equal(read.hu, truth[1].hu)
    with pytest.raises(VolumeError, match="oblique"):
        read_nifti(tmp_path / "v.nii", Acquisition(steps, (1, 0, 0, 0, 0.8, 0.6), 1, 0))
