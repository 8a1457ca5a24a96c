"""Copies of scans are found however they were hidden, and strangers are let pass."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ctflow_fed.copies import CopyIndex, picture_of
from ctflow_fed.ct.phantom import PUBLIC, draw, draw_findings
from ctflow_fed.errors import SettingsError, StoreError

SCANNER = PUBLIC.scanner.resized(32, 32)
KNOWN = 12


@pytest.fixture(scope="module")
def scans():
    """Volumes of 17 patients."""
    return [
        draw(s, draw_findings(s, PUBLIC), scanner=SCANNER).volume for s in range(17)
    ]


@pytest.fixture(scope="module")
def index(scans):
    return CopyIndex.build(pictures(scans[:KNOWN]), [str(i) for i in range(KNOWN)])


def pictures(scans):
    return torch.stack([picture_of(scan) for scan in scans])


def moved(hu):
    """Move a volume by three voxels along each axis; what comes in is at its face."""
    return np.pad(hu, 3, mode="edge")[6:, :-6, 6:]


def grainy(hu):
    noise = np.random.default_rng(0).normal(0, 20, hu.shape)
    return (hu + noise).round().astype(np.int16)


@pytest.mark.parametrize(
    "hide",
    [
        lambda hu: hu,
        lambda hu: hu[:, :, ::-1],
        lambda hu: hu[::-1, ::-1],
        moved,
        grainy,
        lambda hu: grainy(moved(hu[:, :, ::-1])),
    ],
    ids=["plain", "mirrored", "turned", "moved", "grainy", "all"],
)
def test_a_hidden_copy_is_found(scans, index, hide):
    hidden = [replace(scan, hu=hide(scan.hu).copy()) for scan in scans[:3]]

    assert all(index.check(picture_of(each)).is_copy for each in hidden)


def test_another_patient_is_no_copy(scans, index):
    checks = [index.check(picture_of(each)) for each in scans[KNOWN:]]

    assert not any(check.is_copy for check in checks)
    assert all(check.others <= check.likeness < 0.9 for check in checks)


def test_two_scans_of_one_patient_do_not_raise_the_alarm_level(scans, index):
    twice = [*scans[:KNOWN], *scans[:KNOWN]]
    patients = [str(i) for i in range(KNOWN)] * 2

    assert CopyIndex.build(pictures(twice), patients).alarm == pytest.approx(
        index.alarm, abs=0.01
    )


def test_an_index_is_private_and_the_same_when_it_is_read_again(scans, index, tmp_path):
    path = tmp_path / "copies.safetensors"
    index.save(path)

    again = CopyIndex.load(path)

    picture = picture_of(scans[-1])
    assert again.check(picture) == index.check(picture)
    if os.name == "posix":
        assert path.stat().st_mode & 0o077 == 0


def test_a_damaged_index_is_refused(index, tmp_path):
    path = tmp_path / "copies.safetensors"
    pictures = index.pictures.half()
    for broken in (
        {"pictures": pictures, "own": index.own[1:]},
        {"pictures": pictures, "own": index.own * torch.nan},
        {"pictures": pictures[:, :16].contiguous(), "own": index.own},
        {"pictures": pictures},
    ):
        save_file(broken, path)
        with pytest.raises(StoreError, match="index"):
            CopyIndex.load(path)
    path.write_bytes(b"no safetensors")
    with pytest.raises(StoreError, match="index"):
        CopyIndex.load(path)


def test_too_few_patients_are_refused(scans):
    with pytest.raises(SettingsError, match="8 patients"):
        CopyIndex.build(pictures(scans[:4]), ["one", "two"] * 2)
