"""Volumes to measure drift on: whole, above a real head, from real neighbours."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ctflow_fed.ct.codec import HaarCodec
from ctflow_fed.ct.nifti import write_nifti
from ctflow_fed.ct.report import HashingReportEncoder
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.errors import SettingsError
from ctflow_fed.evaluation.drift import ModeSettings, draw_modes, prompts_of
from ctflow_fed.evaluation.scans import scans_of
from ctflow_fed.model import FMvTConfig, ModelPackage, Provenance, fresh_network
from ctflow_fed.sampling import SampleSettings, VolumeSampler


@pytest.fixture(scope="module")
def sampler() -> VolumeSampler:
    """A network that has learnt nothing, for 32 x 32 pixels."""
    codec, encoder = HaarCodec(), HashingReportEncoder()
    provenance = Provenance(
        codec_id=codec.codec_id,
        encoder_id=encoder.encoder_id,
        latent_size=(8, 8),
        slices=32,
        spacing=(5.0, 8.0, 8.0),
        steps=1,
        seed=0,
    )
    network = fresh_network(FMvTConfig(layers=1, features=32, heads=2), seed=0)
    generator = torch.Generator().manual_seed(1)
    for value in network.parameters():  # so that it heeds all that it is told
        value.data += 0.05 * torch.randn(value.shape, generator=generator)
    package = ModelPackage(network, provenance, "digest")
    return VolumeSampler(package, codec, encoder, SampleSettings(steps=2))


@pytest.fixture
def real(tmp_path: Path) -> Path:
    """A volume of 40 slices and one of 20."""
    affine = np.diag([5.0, -8.0, -8.0, 1.0])[[2, 1, 0, 3]]
    rng = np.random.default_rng(0)
    for slices in (40, 20):
        hu = rng.normal(-800, 50, (slices, 32, 32)).astype(np.int16)
        hu[:, 8:24, 8:24] = 40
        write_nifti(CTVolume(hu, affine), tmp_path / "real" / f"{slices}.nii.gz")
    return tmp_path / "real"


def test_each_length_and_mode_is_drawn_once(sampler, real: Path, tmp_path: Path):
    settings = ModeSettings(lengths=(32, 48), seeds=1)

    def draw():
        return draw_modes(
            sampler, scans_of(real), ["", "Effusion."], tmp_path, settings
        )

    sets = draw()
    counts = {drawn.part: len(drawn.scans) for drawn in sets}
    assert counts == {
        "32 full-body": 2,
        "32 given-head": 1,
        "32 teacher-forced": 1,
        "48 full-body": 2,
        "48 given-head": 0,
        "48 teacher-forced": 0,
    }
    assert "as many slices" in sets[4].reason
    assert {len(scan.read().hu) for scan in sets[0].scans} == {32}

    files = sorted(tmp_path.glob("*/*/*.nii.gz"))
    times = [file.stat().st_mtime_ns for file in files]
    draw()
    assert [file.stat().st_mtime_ns for file in files] == times


def test_teacher_forcing_keeps_the_lowest_slices_and_redraws_the_others(sampler, real):
    volume = scans_of(real)[1].read()

    one, same, other = (sampler.redraw(volume, "", seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.hu[:16], volume.hu[:16])
    assert not np.array_equal(one.hu[16:], volume.hu[16:])
    assert np.array_equal(one.hu, same.hu)
    assert not np.array_equal(one.hu[32:], other.hu[32:])
    assert one.hu.shape == volume.hu.shape


def test_what_is_drawn_anew_does_not_depend_on_what_was_drawn_below(sampler, real):
    volume = scans_of(real)[1].read()
    hu = volume.hu.copy()
    hu[:16] = -1000  # what lies below the 16 slices that clip 2 is given

    changed = sampler.redraw(CTVolume(hu, volume.affine), "", seed=1)
    plain = sampler.redraw(volume, "", seed=1)
    assert np.abs(changed.hu[32:] - plain.hu[32:]).max() <= 1


def test_the_prompts_are_five_and_the_same_every_time():
    assert len(set(prompts_of())) == 5
    assert prompts_of() == prompts_of()


@pytest.mark.parametrize(
    "wrong", [{"lengths": (40,)}, {"modes": ("sideways",)}, {"seeds": 0}]
)
def test_bad_settings_are_refused(wrong):
    with pytest.raises(SettingsError):
        ModeSettings(**wrong)
