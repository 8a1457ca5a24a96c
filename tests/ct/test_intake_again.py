"""Intake a second time: what was refused is not read again, what hangs is ended."""

import csv
import os
import time
from functools import partial

import numpy as np
import pytest

from ctflow_fed.ct.account import read_account
from ctflow_fed.ct.dicom import SeriesTags, write_series
from ctflow_fed.ct.intake import IntakeSettings, intake
from ctflow_fed.ct.nifti import write_nifti
from ctflow_fed.ct.policy import STRICT, IntakePolicy
from ctflow_fed.ct.store import LatentStore
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.processes import LOST, Processes, time_limit

SMALL = IntakeSettings(image_size=32, policy=STRICT)
NOW = time.time()


def volume(seed=0):
    axes = np.ogrid[:18, :40, :40]
    inside = sum((axis - 15 - seed) ** 2 for axis in axes) < 144
    hu = np.where(inside, 40, -1000).astype(np.int16)
    return CTVolume(hu, np.diag([2.5, -1.5, -1.5, 1.0])[[2, 1, 0, 3]])


def table(folder, *rows):
    path = folder / "reports.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("study", "report"), *rows])
    return path


@pytest.fixture
def hospital(tmp_path):
    """One study that is taken, one that is broken, one that no row names."""
    source = tmp_path / "scans"
    write_nifti(volume(), source / "good.nii.gz")
    write_nifti(volume(1), source / "unnamed.nii.gz")
    (source / "broken.nii.gz").write_bytes(b"no scan")
    reports = table(tmp_path, ("good", "Nodule."), ("broken", "Nodule."))
    intake(source, reports, tmp_path / "site", SMALL)
    return source, reports, tmp_path / "site"


class Reader:
    """A pool that tells which entries it was given."""

    def __init__(self):
        self.read = []

    def run(self, make_worker, batches):
        worker = make_worker()
        for batch in batches:
            self.read += [entry.name for entry in batch]
            yield batch, worker(batch)


def read_again(hospital, settings=SMALL):
    reader = Reader()
    account = intake(*hospital, settings, pool=reader)
    return reader.read, {one.name: one.reason for one in account.refused}


def test_what_was_refused_is_not_read_again_and_says_why_as_before(hospital):
    read, refused = read_again(hospital)

    assert read == []
    assert "NIfTI" in refused["broken"]
    assert "no row" in refused["unnamed"]


def test_it_is_read_again_when_its_file_its_row_or_the_policy_changes(hospital):
    source, _, out = hospital
    os.utime(source / "broken.nii.gz", (NOW, NOW))
    assert read_again(hospital)[0] == ["broken"]

    rows = [("good", "Nodule."), ("broken", "Nodule.")]
    table(out.parent, rows[0], ("broken", "Nodules."))
    assert "broken" in read_again(hospital)[0]

    table(out.parent, *rows, ("unnamed", "Nodule."))
    read, refused = read_again(hospital)
    assert "unnamed" in read
    assert "unnamed" not in refused

    lossy = IntakePolicy(region="any", lossy="accept")
    other = IntakeSettings(image_size=32, policy=lossy)
    assert read_again(hospital, other)[0] == ["broken"]


def test_a_folder_of_several_studies_is_not_looked_through_again(tmp_path):
    source = tmp_path / "scans"
    for number in range(2):
        tags = SeriesTags(f"SYN-{number}")
        folder = source / "export" / str(number)
        write_series(volume(number), folder, seed=number, tags=tags)
    hospital = source, table(tmp_path, ("another", "Nodule.")), tmp_path / "site"
    write_nifti(volume(), source / "another.nii.gz")

    assert len(intake(*hospital, SMALL).refused) == 2
    assert read_again(hospital)[0] == []
    (source / "export" / "1" / "00001.dcm").unlink()
    assert read_again(hospital)[0] == ["export"]


def test_what_is_remembered_names_no_file_and_a_torn_line_is_forgotten(hospital):
    memory = hospital[2] / "seen.jsonl"
    content = memory.read_bytes()

    assert content.count(b"\n") == 2
    assert b"broken" not in content
    assert b"nii" not in content
    memory.write_bytes(content[:-9])
    assert len(read_again(hospital)[0]) == 1
    memory.write_bytes(b"{}\n")
    assert len(read_again(hospital)[0]) == 2


def test_rights_that_were_lacking_are_tried_again(hospital, monkeypatch):
    source, _, out = hospital
    write_nifti(volume(2), source / "broken.nii.gz")

    def forbidden(path, acquisition=None):
        raise PermissionError

    with monkeypatch.context() as context:
        context.setattr("ctflow_fed.ct.scan.read_nifti", forbidden)
        assert "rights" in read_again(hospital)[1]["broken"]
    assert read_again(hospital)[0] == ["broken"]
    assert len(LatentStore.open(out)) == 2


def _hang(numbers):
    with time_limit(0.2):
        time.sleep(600 * numbers[0])
    return list(numbers)


def _make_hanging():
    return _hang


@pytest.mark.slow
def test_a_worker_that_takes_too_long_is_ended_and_costs_its_batch_alone():
    results = dict(Processes(1).run(_make_hanging, [(0,), (1,), (0,)]))

    assert results == {(0,): [0], (1,): [LOST]}


def _dies_of_one(make_worker):
    desk = make_worker()
    take = desk._taken

    def taken(name, *arguments, **options):
        if name == "1":
            os._exit(9)
        return take(name, *arguments, **options)

    desk._taken = taken
    return desk


class Mortal:
    """Processes of which each dies of the second study."""

    def run(self, make_worker, batches):
        return Processes(1).run(partial(_dies_of_one, make_worker), batches)


@pytest.mark.slow
def test_a_study_that_ends_its_reader_does_not_cost_those_beside_it(tmp_path):
    for number in range(3):
        write_nifti(volume(number), tmp_path / "scans" / "all" / f"{number}.nii.gz")
    reports = table(tmp_path, *((str(number), "Nodule.") for number in range(3)))

    account = intake(
        tmp_path / "scans", reports, tmp_path / "site", SMALL, pool=Mortal()
    )
    assert [study.name for study in account.taken] == ["0", "2"]
    assert "took too long or ended it" in account.refused[0].reason
    assert len(read_account(tmp_path / "site")) == 3
    assert len(intake(*_again(tmp_path), SMALL).taken) == 3  # by another reader


def _again(folder):
    return folder / "scans", folder / "reports.csv", folder / "site"
