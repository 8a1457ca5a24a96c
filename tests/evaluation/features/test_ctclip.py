"""CT-CLIP's image tower, against what its authors' code computes with the weights."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.errors import PackageError
from ctflow_fed.evaluation.features import (
    FeatureExtractor,
    as_published,
    extractor_named,
)

CODES = "visual_transformer.vq._codebook.embed"

EXPECTED = (
    *(-0.31973, -0.30296, -0.0757, -0.55969),
    *(-0.3044, -0.28378, 0.27505, 0.48803),
)
"""What CT-CLIP's code at a2a155c gave for `volume` with `ctclip_weights`."""


def volume() -> torch.Tensor:
    """Return a volume of 40 slices, as -1000 to 1000 HU is 0 to 1."""
    slices, rows, columns = (torch.arange(side) for side in (40, 60, 60))
    return (slices[:, None, None] * rows[:, None] ** 2 * columns) % 5003 / 5002


@pytest.fixture
def ctclip(ctclip_weights, tmp_path):
    path = tmp_path / "ctclip.safetensors"
    save_file(ctclip_weights, path)
    return extractor_named(f"ctclip:{path}", 3)


@torch.no_grad()
def test_volumes_become_what_the_authors_code_makes_of_them(ctclip):
    vector = ctclip.latent(volume())

    assert isinstance(ctclip, FeatureExtractor)
    assert vector.tolist() == pytest.approx(EXPECTED, abs=1e-5)


@torch.no_grad()
def test_a_volume_on_the_isotropic_grid_has_its_slices_averaged_in_pairs(ctclip):
    finer = volume().repeat_interleave(2, dim=0)

    vectors = ctclip.extract(torch.stack([finer, 1 - finer]))

    assert torch.allclose(vectors[0], ctclip.latent(volume()), atol=1e-5)
    assert torch.allclose(vectors[1], ctclip.latent(1 - volume()), atol=1e-5)


def test_a_scan_is_brought_to_the_voxels_and_hounsfield_units_of_ctclip():
    hu = np.full((30, 20, 40), -3000, np.int16)
    hu[15:], hu[:, :, 20:] = 500, 4000
    affine = np.diag([3.0, 1.5, 1.5, 1.0])

    image = as_published(CTVolume(hu, affine))

    assert image.shape == (60, 40, 80)
    assert float(image[5, 5, 5]) == 0
    assert float(image[55, 5, 5]) == 0.75
    assert float(image[5, 5, 75]) == 1


def test_weights_of_another_network_are_refused(ctclip_weights, tmp_path):
    whole = ctclip_weights
    kernel = "visual_transformer.enc_temporal_transformer.layers.1.3.4.weight"
    other = {
        "lacking": {name: each for name, each in whole.items() if name != kernel},
        "misfit": whole | {kernel: torch.zeros(7, 3)},
        "half a transformer": {n: each for n, each in whole.items() if "to_q" not in n},
        "not finite": whole | {kernel: whole[kernel] / 0},
        "no code": whole | {CODES: torch.zeros(0)},
        "huge": whole | {"to_visual_latent.weight": torch.zeros(1, 32 * 65**2)},
        "text": {name: each for name, each in whole.items() if "visual" not in name}
        | {"to_text_latent.weight": torch.zeros(24, 32)},
    }
    for name, kept in other.items():
        path = tmp_path / f"{name}.safetensors"
        save_file(kept, path)
        with pytest.raises(PackageError, match="CT-CLIP"):
            extractor_named(f"ctclip:{path}", 3)
