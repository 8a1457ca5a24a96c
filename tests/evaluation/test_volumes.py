import nibabel
import numpy as np
import pytest
import torch

from ctflow_fed.errors import SettingsError
from ctflow_fed.evaluation.volumes import labels_of_items, load_volumes


def test_the_hu_window_becomes_minus_one_to_one_and_the_rest_is_clipped(tmp_path):
    hu = np.full((16, 16, 16), 500, dtype=np.int16)
    hu[:4], hu[4:8], hu[8:12] = -1024, 3000, 0
    nibabel.save(nibabel.Nifti1Image(hu, np.eye(4)), tmp_path / "a.nii.gz")

    volumes = load_volumes([{"image": tmp_path / "a.nii.gz"}], (16, 16, 16))

    assert volumes.shape == (1, 1, 16, 16, 16)
    assert volumes[0, 0, [0, 5, 9, 14], 3, 3].tolist() == [-1, 1, 0, 0.5]


def test_volumes_are_turned_to_one_orientation(tmp_path):
    hu = np.random.default_rng(0).integers(-1000, 1000, (16, 18, 20)).astype(np.int16)
    turned = nibabel.Nifti1Image(
        np.ascontiguousarray(hu.transpose(2, 1, 0)[::-1]),
        np.array([[0, 0, 1, 0], [0, 1, 0, 0], [-1, 0, 0, 19], [0, 0, 0, 1.0]]),
    )
    nibabel.save(nibabel.Nifti1Image(hu, np.eye(4)), tmp_path / "a.nii.gz")
    nibabel.save(turned, tmp_path / "b.nii.gz")

    items = [{"image": tmp_path / name} for name in ("a.nii.gz", "b.nii.gz")]
    volumes = load_volumes(items, (16, 18, 20))

    assert torch.equal(volumes[0], volumes[1])


def test_an_item_with_too_few_labels_is_refused():
    with pytest.raises(SettingsError, match="18 numbers"):
        labels_of_items([{"label": [0, 1]}])
