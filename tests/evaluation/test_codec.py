"""What a codec keeps of real slices: known losses, and agreement with libraries."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from monai.metrics.regression import SSIMMetric
from torch.nn.functional import avg_pool2d
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure as ms_ssim,
)
from torchmetrics.functional.image import peak_signal_noise_ratio

from ctflow_fed.cli import cli
from ctflow_fed.ct.codec import HaarCodec
from ctflow_fed.ct.codec_error import slice_numbers, there_and_back
from ctflow_fed.ct.nifti import write_nifti
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.errors import SettingsError
from ctflow_fed.evaluation.codec import codec_measures, measure_codec, multiscale_ssim
from ctflow_fed.evaluation.nodules import contrast_kept
from ctflow_fed.evaluation.scans import scans_of


class Shifting(HaarCodec):
    """Brightens all that it decodes by 20 HU."""

    def decode(self, latents):
        return super().decode(latents) + 20


class Blurring(HaarCodec):
    """Decodes a mean of 5 x 5 pixels."""

    def decode(self, latents):
        return avg_pool2d(super().decode(latents)[:, None], 5, 1, 2)[:, 0]


def scan(side: int = 64, *, pixel_mm: float = 1.5, seed: int = 0) -> CTVolume:
    """Slices of a body with a wide lung in it and a bone beside that."""
    rng = np.random.default_rng(seed)
    hu = rng.normal(40, 5, (6, side, side))
    hu[:, :5] = -980
    hu[:, 8:-8, 8:-8] = rng.normal(-800, 20, (6, side - 16, side - 16))
    hu[:, -6:, 10:20] = 500
    affine = np.diag([2.0, -pixel_mm, -pixel_mm, 1.0])[[2, 1, 0, 3]]
    return CTVolume(hu.round().astype(np.int16), affine)


def slices(seed: int, side: int = 48) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 300 * torch.randn(3, side, side, generator=generator) - 200


def test_a_codec_that_loses_nothing_passes_everything(tmp_path: Path):
    for seed in range(3):
        write_nifti(scan(seed=seed), tmp_path / f"{seed}.nii.gz")

    found = measure_codec(scans_of(tmp_path), HaarCodec(), tmp_path / "cache")
    figures = {(f.name, f.part): f for f in found.figures}
    missing = [f.part for f in found.figures if f.verdict == "not measured"]
    assert missing == ["fat"]
    assert "fail" not in {f.verdict for f in found.figures}
    assert figures["psnr", ""].value.value > 90
    assert figures["ssim", ""].value.value == pytest.approx(1, abs=1e-6)
    assert figures["nodule_contrast", "6 mm"].value.value == pytest.approx(1, abs=1e-3)
    assert figures["bias", "bone"].n == 3


def test_a_bias_is_told_in_every_tissue():
    found = codec_measures(Shifting(), scan())

    for tissue in ("air", "lung", "soft", "bone"):
        assert found[f"bias/{tissue}"] == pytest.approx(20, abs=0.1)
    assert np.isnan(found["bias/fat"])


def test_blur_takes_more_from_small_nodules():
    kept = [contrast_kept(Blurring(), scan(), size) for size in (4.0, 6.0, 10.0)]

    assert kept == sorted(kept)
    assert kept[0] < 0.6 < kept[2] < 0.95


def test_a_nodule_that_pixels_cannot_show_is_not_measured():
    assert np.isnan(contrast_kept(HaarCodec(), scan(pixel_mm=3.0), 4.0))


def test_a_side_that_blocks_do_not_tile_keeps_its_size():
    volume = scan(side=50)

    back = there_and_back(HaarCodec(), volume)
    assert np.abs(back.hu - volume.hu).max() <= 1
    assert back.hu.shape == volume.hu.shape


def test_psnr_and_ssim_are_those_of_torchmetrics_and_monai():
    one, other = (slices(seed).clamp(-1000, 1000) for seed in (0, 1))
    metric = SSIMMetric(2, data_range=2000.0, kernel_type="uniform", win_size=7)

    found = slice_numbers(one, other)
    theirs = metric(one[:, None].double(), other[:, None].double()).mean()
    assert found["ssim"] == pytest.approx(float(theirs), abs=1e-6)
    psnr = float(peak_signal_noise_ratio(one, other, data_range=2000.0))
    assert found["psnr"] == pytest.approx(psnr, abs=1e-5)


def test_ms_ssim_is_that_of_torchmetrics_where_all_five_scales_fit():
    one = slices(0, 192).clamp(-900, 900)
    other = one + 20 * torch.randn(
        one.shape, generator=torch.Generator().manual_seed(2)
    )

    theirs = ms_ssim(other[:, None] + 1000, one[:, None] + 1000, data_range=2000.0)
    assert multiscale_ssim(other, one) == pytest.approx(float(theirs), abs=1e-6)


def test_a_folder_without_volumes_is_refused(tmp_path: Path):
    with pytest.raises(SettingsError, match="found none"):
        measure_codec([], HaarCodec(), tmp_path)


def test_the_command_prints_a_table(tmp_path: Path):
    write_nifti(scan(), tmp_path / "in" / "one.nii.gz")
    out = tmp_path / "out"

    words = ["evaluate", "codec", str(tmp_path / "in"), "--out", str(out)]
    result = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert result.exit_code == 0
    assert "nodule_contrast" in result.stdout
    figures = json.loads((out / "codec.json").read_text())["figures"]
    assert len(figures) == 11


@pytest.mark.slow
def test_the_embedded_codec_keeps_real_ct(shared: Path, tmp_path: Path):
    volumes = shared / "realdata/volumes"
    for name in ("totalseg_example_ct_sm/ct", "lidc_0314_ds2/ct_binned2x2x2"):
        copy = tmp_path / f"{Path(name).parent.name}.nii.gz"
        shutil.copy(volumes / f"{name}.nii.gz", copy)

    found = measure_codec(scans_of(tmp_path), HaarCodec(), tmp_path / "cache")
    assert "fail" not in {figure.verdict for figure in found.figures}
    assert found.figures[0].n == 2
