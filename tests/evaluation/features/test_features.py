"""Features: the same for the same volume, moved by what readers would see."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.errors import VolumeError
from ctflow_fed.evaluation.features import (
    FeatureCache,
    FeatureExtractor,
    HaarSlices,
    HaarVolumes,
    isotropic,
    planes,
    windowed,
)


def volume(noise: float = 10.0, *, shape=(12, 24, 24), mm=(6.0, 4.0, 4.0)) -> CTVolume:
    """A dense ball in air, with noise."""
    z, y, x = np.meshgrid(
        *(np.linspace(1 / n - 1, 1 - 1 / n, n) for n in shape), indexing="ij"
    )
    hu = np.where(z**2 + y**2 + x**2 < 0.5, 40.0, -900.0)
    hu += np.random.default_rng(0).normal(0, noise, shape)
    return CTVolume(hu.astype(np.int16), np.diag([*mm, 1.0]))


@pytest.fixture(params=[HaarSlices, HaarVolumes])
def extractor(request) -> FeatureExtractor:
    return request.param()


def images(extractor: FeatureExtractor, seen: CTVolume) -> torch.Tensor:
    image = windowed(isotropic(seen, extractor.spacing_mm), "lung")
    return image if extractor.axes == 2 else image[None]


def test_an_extractor_says_what_it_is_and_that_it_has_learnt_nothing(extractor):
    assert isinstance(extractor, FeatureExtractor)
    assert len(extractor.extractor_id) == 64
    assert not extractor.pretrained


def test_the_vector_of_an_image_does_not_depend_on_its_neighbours(extractor):
    seen = images(extractor, volume())
    other = images(extractor, volume(noise=50))

    together = extractor.extract(torch.cat([seen, other]))
    assert torch.equal(extractor.extract(seen), together[: len(seen)])
    assert together.shape[1] == (25 if extractor.axes == 2 else 36)


def test_noise_moves_texture_and_leaves_the_layout(extractor):
    cells = extractor.grid**extractor.axes
    calm, noisy = (
        extractor.extract(images(extractor, volume(noise))).mean(0)
        for noise in (10, 60)
    )

    moved = (noisy - calm).abs()
    assert moved[:cells].max() < 0.02
    assert moved[cells:].max() > 0.1


def test_a_jump_between_slices_shows_across_slices_alone():
    extractor = HaarVolumes()
    noise = np.random.default_rng(0).normal(0, 20, (12, 24, 24)).astype(np.int16)
    calm = CTVolume(noise, np.diag([6.0, 6.0, 6.0, 1.0]))
    striped = noise.copy()
    striped[::2] += 60
    jumping = CTVolume(striped, calm.affine)

    before, after = (
        extractor.extract(windowed(isotropic(v, 6.0), "lung")[None])[0]
        for v in (calm, jumping)
    )
    across, within, both = (after - before)[27:30].tolist()
    assert across > 1
    assert max(abs(within), abs(both)) < 1e-3


def test_one_object_is_as_large_on_the_grid_however_it_was_sampled():
    coarse = isotropic(volume(), 4.0)
    fine = isotropic(volume(shape=(24, 48, 48), mm=(3.0, 2.0, 2.0)), 4.0)

    assert coarse.shape == fine.shape == (18, 24, 24)
    sizes = [(grid > -400).sum().item() for grid in (coarse, fine)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


def test_a_volume_larger_than_any_patient_is_refused_before_it_is_resampled():
    with pytest.raises(VolumeError, match="check its spacing"):
        isotropic(volume(mm=(90.0, 90.0, 90.0)), 1.0)


def test_planes_are_cut_along_each_axis_and_few_slices_come_twice():
    image = isotropic(volume(), 4.0)

    found = dict(planes(image, 20))
    assert {name: tuple(cut.shape) for name, cut in found.items()} == {
        "axial": (20, 24, 24),
        "coronal": (20, 18, 24),
        "sagittal": (20, 18, 24),
    }
    assert torch.equal(found["coronal"][0], image[:, 2])


def test_a_window_is_nought_to_one():
    hu = torch.tensor([[[-2000.0, -160.0, 40.0, 240.0, 3000.0]]])

    assert windowed(hu, "mediastinal").flatten().tolist() == [0, 0, 0.5, 1, 1]


def test_what_was_made_once_is_read_and_what_is_broken_is_made_again(tmp_path: Path):
    cache, made = FeatureCache(tmp_path), []

    def make():
        made.append(1)
        return {"a": torch.arange(3.0)}

    first = {k: v.clone() for k, v in cache.get(["content", "extractor"], make).items()}
    assert torch.equal(cache.get(["content", "extractor"], make)["a"], first["a"])
    assert len(made) == 1
    cache.get(["content", "another extractor"], make)
    assert len(made) == 2

    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:20])
    assert torch.equal(cache.get(["content", "extractor"], make)["a"], first["a"])
    assert len(made) == 3
    assert sum(1 for file in tmp_path.iterdir() if _reads(file)) == 1


def _reads(file: Path) -> bool:
    try:
        return bool(load_file(file))
    except Exception:  # noqa: BLE001  whatever safetensors raises
        return False
