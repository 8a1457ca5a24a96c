"""Intake under attack and in need: bombs, links, rights, full disks, lost workers."""

import csv
import errno
import gzip
import os

import numpy as np
import pytest

from ctflow_fed.ct.account import read_account
from ctflow_fed.ct.dicom import SeriesTags, write_series
from ctflow_fed.ct.intake import IntakeSettings, intake
from ctflow_fed.ct.metaimage import read_itk
from ctflow_fed.ct.nifti import read_nifti, write_nifti
from ctflow_fed.ct.policy import STRICT, IntakePolicy
from ctflow_fed.ct.store import LatentStore
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.errors import SettingsError, VolumeError
from ctflow_fed.processes import LOST, Processes

SMALL = IntakeSettings(image_size=32, policy=STRICT)


def volume(seed=0):
    axes = np.ogrid[:18, :40, :40]
    inside = sum((axis - 15 - seed) ** 2 for axis in axes) < 144
    hu = np.where(inside, 40, -1000).astype(np.int16)
    affine = np.diag([2.5, -1.5, -1.5, 1.0])[[2, 1, 0, 3]]
    return CTVolume(hu, affine)


@pytest.fixture
def hospital(tmp_path):
    source = tmp_path / "scans"
    for number in range(3):
        write_nifti(volume(number), source / f"study-{number}.nii.gz")
    return source, table(tmp_path, "study-0", "study-1", "study-2"), tmp_path / "site"


def table(folder, *names):
    path = folder / "reports.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("study", "report"), *((n, "x") for n in names)])
    return path


def test_two_processes_take_the_same_as_one(hospital):
    source, reports, out = hospital
    one = intake(source, reports, out, SMALL)
    two = intake(source, reports, out.with_name("two"), SMALL, pool=Processes(2))

    stores = LatentStore.open(out), LatentStore.open(out.with_name("two"))
    digests = [{record.sha256 for record in store.records} for store in stores]
    assert digests[0] == digests[1]
    assert [study.name for study in one.studies] == [s.name for s in two.studies]


def test_a_dry_run_judges_and_writes_nothing(hospital):
    source, reports, out = hospital
    account = intake(source, reports, out, SMALL, dry_run=True)

    assert {study.account.verdict for study in account.studies} == {"taken"}
    assert not out.exists()
    assert sorted(path.name for path in out.parent.iterdir()) == [
        "reports.csv",
        "scans",
    ]


def test_only_what_is_new_is_read(hospital):
    source, reports, out = hospital
    intake(source, reports, out, SMALL)
    write_nifti(volume(5), source / "study-9.nii.gz")
    reports = table(out.parent, "study-0", "study-1", "study-2", "study-9")

    account = intake(source, reports, out, SMALL)
    assert [study.name for study in account.studies if study.new] == ["study-9"]


def _die(numbers):
    if numbers[0] == 1:
        os._exit(9)
    return [number * 10 for number in numbers]


def _make_mortal():
    return _die


def _make_none():
    raise SettingsError("no such codec")


def test_a_worker_that_dies_costs_its_batch_alone():
    results = dict(Processes(2).run(_make_mortal, [(0,), (1,), (2,), (3,)]))

    assert results == {(0,): [0], (1,): [LOST], (2,): [20], (3,): [30]}


def test_what_no_worker_can_be_made_of_is_raised_here():
    with pytest.raises(SettingsError, match="no such codec"):
        list(Processes(1).run(_make_none, [(0,)]))


def test_a_full_disk_costs_the_study_and_the_rest_is_done(hospital, monkeypatch):
    source, reports, out = hospital
    write, calls = LatentStore.write, []

    def full_once(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(*arguments, **options)

    monkeypatch.setattr(LatentStore, "write", full_once)
    account = intake(source, reports, out, SMALL)
    assert len(account.taken) == 2
    assert "room on the disk" in account.refused[0].reason
    assert sorted(one.verdict for one in read_account(out).values()) == [
        "refused",
        "taken",
        "taken",
    ]

    assert len(intake(source, reports, out, SMALL).taken) == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_rights_costs_its_study_alone(hospital):
    source, reports, out = hospital
    (source / "study-1.nii.gz").chmod(0)

    assert len(intake(source, reports, out, SMALL).taken) == 2


def test_links_in_circles_and_to_nothing_are_no_scans(hospital):
    source, _, out = hospital
    (source / "circle").mkdir()
    (source / "circle" / "again").symlink_to(source / "circle")
    (source / "circle" / "nothing.dcm").symlink_to(source / "absent")
    (source / "nowhere.nii.gz").symlink_to(source / "absent")
    reports = table(out.parent, "study-0", "study-1", "study-2", "circle", "nowhere")

    account = intake(source, reports, out, SMALL)
    assert len(account.taken) == 3
    assert sorted(study.name for study in account.refused) == ["circle", "nowhere"]


def header_claiming(path, *shape):
    """A packed NIfTI of a few bytes that claims a shape."""
    write_nifti(volume(), path)
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[42:48] = np.array(shape, "<i2").tobytes()
    path.write_bytes(gzip.compress(bytes(content)))


@pytest.mark.parametrize("shape", [(30_000, 30_000, 5_000), (1000, 1000, 1000)])
def test_a_header_that_claims_too_much_costs_nothing(tmp_path, shape):
    import tracemalloc

    header_claiming(tmp_path / "bomb.nii.gz", *shape)
    tracemalloc.start()
    with pytest.raises(VolumeError, match="claims"):
        read_nifti(tmp_path / "bomb.nii.gz")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_nrrd_and_metaimage_are_read_as_they_were_written(tmp_path, ending):
    import SimpleITK

    expected = volume()
    image = SimpleITK.GetImageFromArray(expected.hu)
    image.SetSpacing((1.5, 1.5, 2.5))
    SimpleITK.WriteImage(image, str(tmp_path / f"v{ending}"), True)

    read = read_itk(tmp_path / f"v{ending}")
    assert np.array_equal(read.hu, expected.hu)
    assert read.spacing == pytest.approx((2.5, 1.5, 1.5))


@pytest.mark.parametrize(
    ("name", "header"),
    [
        (
            "v.nrrd",
            b"NRRD0004\ntype: short\ndimension: 3\nsizes: 9 9 9\n"
            b"encoding: raw\ndata file: /etc/passwd\n\n",
        ),
        (
            "v.mha",
            b"ObjectType = Image\nNDims = 3\nDimSize = 9 9 9\n"
            b"ElementType = MET_SHORT\nElementDataFile = /etc/passwd\n",
        ),
    ],
)
def test_a_header_never_leads_to_another_file(tmp_path, name, header):
    (tmp_path / name).write_bytes(header)

    with pytest.raises(VolumeError, match="names another"):
        read_itk(tmp_path / name)


def test_studies_of_one_folder_are_told_apart_by_uid(tmp_path):
    from pydicom import dcmread

    folder, uids = tmp_path / "scans" / "export", []
    for number in range(2):
        tags = SeriesTags(f"SYN-{number}")
        write_series(volume(number), folder / str(number), seed=number, tags=tags)
        uids.append(dcmread(folder / str(number) / "00001.dcm").StudyInstanceUID)

    reports = table(tmp_path, *uids)
    account = intake(tmp_path / "scans", reports, tmp_path / "site", SMALL)
    assert sorted(study.name for study in account.taken) == sorted(uids)
    assert account.reports_without_scan == 0


def test_an_abdomen_is_refused_by_the_height_of_its_lungs(hospital):
    source, reports, out = hospital
    account = intake(source, reports, out, IntakeSettings(image_size=32))

    assert account.taken == ()
    assert "expected a chest" in account.refused[0].reason


def test_a_policy_is_read_from_toml_and_unknown_names_are_refused(tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text('tilt = "correct"\n')
    assert IntakePolicy.from_toml(path) == IntakePolicy(tilt="correct")

    for text in ('tilted = "correct"', 'tilt = "ignore"', "tilt ="):
        path.write_text(text)
        with pytest.raises(SettingsError, match="expected"):
            IntakePolicy.from_toml(path)
