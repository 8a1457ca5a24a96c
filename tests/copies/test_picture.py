"""How alike pictures are: of real CT, and by what is known of a correlation."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch

from ctflow_fed.copies.picture import likeness, picture_of
from ctflow_fed.ct.nifti import read_nifti

REAL = (
    "ibsi_lung_phantom/ct.nii.gz",
    "totalseg_example_ct_3mm/ct.nii.gz",
    "totalseg_example_ct_sm/ct.nii.gz",
)


@pytest.fixture(scope="module")
def scans(shared):
    folder = shared / "realdata" / "volumes"
    return [read_nifti(folder / name) for name in REAL]


def test_a_real_scan_is_alike_to_a_hidden_copy_and_to_no_other(scans):
    rng = np.random.default_rng(0)
    pictures = torch.stack([picture_of(scan) for scan in scans])
    for place, scan in enumerate(scans):
        moved = np.pad(scan.hu[:, :, ::-1], 3, mode="edge")[6:, :-6, 6:]
        grainy = (moved + rng.normal(0, 20, moved.shape)).astype(np.int16)
        found = likeness(picture_of(replace(scan, hu=grainy)), pictures)

        assert found.argmax() == place
        assert found[place] > 0.9
        assert found.sort().values[-2] < 0.75


def test_pictures_of_noise_are_strangers():
    noise = torch.randn(5, 40, 40, 40, generator=torch.Generator().manual_seed(0))

    found = [
        likeness(noise[i], noise[[j]]).item() for i, j in permutations(range(5), 2)
    ]

    assert max(found) < 0.1


def test_a_part_of_a_cell_is_found():
    fine = torch.sin(torch.linspace(0, 9, 81))[:, None, None].expand(81, 40, 40)
    grain = torch.randn(1, 40, 40, generator=torch.Generator().manual_seed(0))
    at, half = fine[:80:2] + grain, fine[1::2] + grain

    assert likeness(at, half[None]).item() > 0.999


def test_an_empty_picture_is_alike_to_nothing():
    empty, noise = torch.zeros(40, 40, 40), torch.randn(1, 40, 40, 40)

    assert likeness(empty, noise).item() == 0
    assert likeness(noise[0], empty[None]).item() == 0
