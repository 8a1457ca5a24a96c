"""Every awkward folder of real scans: the case, what is said of it, and why."""

import csv
import shutil

import pytest

from ctflow_fed.ct.desk import IntakeSettings
from ctflow_fed.ct.dicom import read_series
from ctflow_fed.ct.intake import intake
from ctflow_fed.ct.nifti import read_nifti
from ctflow_fed.ct.policy import STRICT, IntakePolicy
from ctflow_fed.errors import VolumeError

TABLE = {  # the verdict of intake, with any region allowed, and a part of its reason
    "a01_gantry_tilt_siemens": ("refused", "tilted gantry (14"),
    "a02_missing_slice_ge": ("refused", "gaps of 5 to 10 mm (a missing slice?)"),
    "a05_mixed_orientations_one_series_mr": ("refused", "another kind of DICOM"),
    "a06_4d_series_mr_fmri": ("refused", "another kind of DICOM"),
    "a07_non_isotropic_pixels": ("refused", "another kind of DICOM"),  # an MR
    "a10_one_chest_slice_in_16_transfer_syntaxes": ("refused", "lossy"),
    "a15_duplicate_slice_mixed_syntax": ("refused", "a single one"),
    "a16_enhanced_multiframe_no_geometry": ("refused", "another unit"),
    "a19_rgb_secondary_capture": ("refused", "another kind of DICOM"),
    "a20_truncated_j2k_and_enhanced_mr": ("refused", "another kind of DICOM"),
    "a21_dicom_seg_object": ("refused", "another kind of DICOM"),
    "a30_scout_plus_axial_one_folder": ("refused", "slices of 2 patients"),
    "a36_tiny_ct_plus_seg_one_folder": ("refused", "another unit"),
    "a37_implicit_vr_no_studydate_ibsi": ("refused", "16 slices or more, got 10"),
    "a38_single_lung_kernel_slice": ("refused", "a single one"),
    "n01_head_cta_not_hu_float": ("refused", "no air"),
    "n03_nibabel_4d_and_nifti2": ("refused", "got several files"),
    "n06_tiny_5x11x3": ("refused", ""),
}


def test_every_case_has_its_verdict_and_reason_and_none_a_traceback(shared, tmp_path):
    source, reports = tmp_path / "scans", tmp_path / "reports.csv"
    for name in TABLE:
        shutil.copytree(shared / "realdata/awkward" / name, source / name)
    with reports.open("w", newline="") as file:
        csv.writer(file).writerows([("study", "report"), *((n, "x") for n in TABLE)])

    account = intake(
        source, reports, tmp_path / "site", IntakeSettings(image_size=32, policy=STRICT)
    )
    told = {one.name: one.account for one in account.studies}
    assert set(told) == set(TABLE)
    for name, (verdict, reason) in TABLE.items():
        assert told[name].verdict == verdict, name
        assert reason in told[name].reason, (name, told[name].reason)
        assert told[name].reason.startswith("expected")


def test_a_real_tilt_is_corrected_where_the_policy_says_so(shared):
    folder = shared / "realdata/awkward/a01_gantry_tilt_siemens"
    volume = read_series(folder, IntakePolicy(tilt="correct", region="any"))

    assert volume.notes == ("gantry tilt of 14.0 degrees corrected by shear",)


@pytest.mark.parametrize("policy", [STRICT, IntakePolicy(uneven="resample")])
def test_a_missing_real_slice_is_refused_under_any_policy(shared, policy):
    with pytest.raises(VolumeError, match="missing slice"):
        read_series(shared / "realdata/awkward/a02_missing_slice_ge", policy)


def test_nifti_2_and_four_dimensions_are_told_apart(shared):
    folder = shared / "realdata/awkward/n03_nibabel_4d_and_nifti2"
    for name in ("example4d.nii.gz", "example_nifti2.nii.gz"):
        with pytest.raises(VolumeError, match="number of dimensions"):
            read_nifti(folder / name)
