"""The codecs: what they keep of a slice, and what they refuse."""

import sys

import numpy as np
import pytest
import torch

from ctflow_fed import machine
from ctflow_fed.ct.codec import (
    FluxCodec,
    HaarCodec,
    codec_named,
    edges_of,
)
from ctflow_fed.ct.nifti import read_nifti
from ctflow_fed.errors import (
    MissingExtraError,
    PackageError,
    SettingsError,
    VolumeError,
)


def noise(*shape, low=-32768, high=32767):
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(low, high, shape).astype(np.float32))


def test_every_int16_survives_haar():
    hu = noise(3, 64, 32)
    hu[0, :8, :8] = -32768
    hu[0, 8:16, :8] = 32767

    again = HaarCodec().decode(HaarCodec().encode(hu))
    assert torch.equal(again.round(), hu)


def test_every_hu_of_a_scan_survives_haar_and_float16_within_2_hu():
    hu = noise(3, 64, 32, low=-1024, high=3072)

    latents = HaarCodec().encode(hu).half().float()
    assert (HaarCodec().decode(latents) - hu).abs().max() < 2


def test_haar_makes_16_channels_at_a_quarter_of_the_resolution():
    assert HaarCodec().encode(noise(3, 64, 32)).shape == (3, 16, 16, 8)


def test_haar_encodes_each_slice_by_itself():
    hu, codec = noise(5, 32, 32), HaarCodec()

    parts = [codec.encode(hu[index : index + 1]) for index in range(5)]
    assert torch.equal(torch.cat(parts), codec.encode(hu))


def test_a_flat_slice_is_in_the_first_channel_of_haar_alone():
    latents = HaarCodec().encode(torch.full((1, 16, 16), -1000.0))

    assert torch.allclose(latents[:, 1:], torch.zeros(1, 15, 4, 4), atol=1e-6)
    assert torch.allclose(latents[:, 0], torch.full((1, 4, 4), (-4 + 2.77) / 1.66))


def test_a_column_edge_is_in_channel_one_and_a_row_edge_in_channel_four():
    columns = torch.zeros(1, 4, 4)
    columns[..., :2] = 1000.0
    rows = columns.transpose(1, 2).contiguous()

    latents = HaarCodec().encode(torch.cat([columns, rows]))
    details = latents[:, 1:].flatten(1).abs()
    assert details.argmax(1).tolist() == [1 - 1, 4 - 1]


@pytest.mark.parametrize("size", [(30, 32), (32, 2)])
def test_slices_that_blocks_of_four_do_not_tile_are_refused(size):
    with pytest.raises(VolumeError, match="multiples of 4"):
        HaarCodec().encode(torch.zeros(1, *size))


def test_the_id_of_haar_is_always_the_same():
    assert HaarCodec().codec_id == HaarCodec().codec_id
    assert len(HaarCodec().codec_id) == 64


def test_haar_latents_of_real_chests_have_about_zero_mean_and_unit_deviation(shared):
    folder = shared / "realdata" / "volumes" / "lidc_0314_ds2"
    volume = read_nifti(next(folder.glob("*.nii.gz"))).squared(128)

    latents = HaarCodec().encode(torch.from_numpy(volume.hu).float())
    deviations = latents.std((0, 2, 3))
    assert latents.mean((0, 2, 3)).abs().max() < 0.3
    assert deviations.min() > 0.7
    assert deviations.max() < 1.4


def test_real_hu_survive_haar_within_a_hundredth(shared):
    folder = shared / "realdata" / "volumes" / "lidc_0314_ds2"
    hu = torch.from_numpy(read_nifti(next(folder.glob("*.nii.gz"))).hu).float()

    again = HaarCodec().decode(HaarCodec().encode(hu))
    assert (again - hu).abs().max() < 0.01


def test_the_weights_of_haar_are_the_hu_that_an_error_of_a_channel_makes():
    codec = HaarCodec()
    nothing = codec.decode(torch.zeros(1, 16, 1, 1))
    errors = codec.decode(torch.eye(16)[:, :, None, None]) - nothing
    sizes = errors.square().mean((1, 2)).sqrt()

    assert sum(codec.channel_weights) == pytest.approx(16)
    expected = 16 * sizes / sizes.sum()
    assert codec.channel_weights == pytest.approx(expected.tolist(), rel=1e-3)


def test_the_edges_are_a_black_and_a_white_slice():
    codec = HaarCodec()

    black, white = codec.decode(edges_of(codec, 32)).round()
    assert (black == -1000).all()
    assert (white == 1000).all()


def test_haar_has_its_name():
    assert isinstance(codec_named("haar"), HaarCodec)


@pytest.mark.parametrize(
    "name", ["harr", "no/such/folder", "", "released:", "released:haar"]
)
def test_a_name_that_is_no_codec_is_refused(name):
    with pytest.raises(SettingsError, match="expected the codec haar"):
        codec_named(name)


def test_without_diffusers_flux_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)

    with pytest.raises(MissingExtraError, match=r"ctflow-fed\[pretrained\]"):
        FluxCodec(str(tmp_path))


def save_autoencoder(folder, **changes):
    """Save a random autoencoder of FLUX's layout, with few channels."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    config = {
        "down_block_types": 4 * ["DownEncoderBlock2D"],
        "up_block_types": 4 * ["UpDecoderBlock2D"],
        "block_out_channels": [8, 8, 8, 8],
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "latent_channels": 16,
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    }
    network = AutoencoderKL(**{**config, **changes})
    network.save_pretrained(folder, safe_serialization=True)
    return network.eval()


def _compute_in_float32(monkeypatch):
    monkeypatch.setattr(machine, "has_native_bfloat16", lambda device: False)


@pytest.mark.slow
def test_flux_gives_what_the_autoencoder_gives(tmp_path, monkeypatch):
    _compute_in_float32(monkeypatch)
    network = save_autoencoder(tmp_path)
    hu = noise(10, 32, 64, low=-2000, high=2000)

    codec = FluxCodec(str(tmp_path))
    latents = codec.encode(hu)
    again = codec.decode(latents)

    pixels = (hu.clamp(-1000, 1000) / 1000)[:, None].repeat(1, 3, 1, 1)
    with torch.no_grad():
        modes = network.encode(pixels).latent_dist.mean
        decoded = network.decode(modes).sample.mean(1).clamp(-1, 1) * 1000
    assert latents.shape == (10, 16, 4, 8)
    assert torch.allclose(latents, (modes - 0.1159) * 0.3611, atol=1e-5)
    assert torch.allclose(again, decoded, atol=0.1)


@pytest.mark.slow
def test_flux_as_released_is_from_0_to_1_and_what_comes_out_brightened(
    tmp_path, monkeypatch
):
    _compute_in_float32(monkeypatch)
    network = save_autoencoder(tmp_path)
    hu = noise(2, 32, 32, low=-2000, high=2000)

    codec = codec_named(f"released:{tmp_path}")
    latents = codec.encode(hu)
    again = codec.decode(latents)

    pixels = ((hu.clamp(-1000, 1000) + 1000) / 2000)[:, None].repeat(1, 3, 1, 1)
    with torch.no_grad():
        modes = network.encode(pixels).latent_dist.mean
        decoded = (network.decode(modes).sample.mean(1) * 306).clamp(0, 255)
    assert torch.allclose(latents, (modes - 0.1159) * 0.3611, atol=1e-5)
    assert torch.allclose(again, decoded / 255 * 2000 - 1000, atol=0.1)
    assert codec.codec_id != codec_named(str(tmp_path)).codec_id


@pytest.mark.slow
def test_the_id_of_flux_is_that_of_its_weights_wherever_they_lie(tmp_path):
    save_autoencoder(tmp_path / "one")
    save_autoencoder(tmp_path / "two" / "vae")
    save_autoencoder(tmp_path / "three", scaling_factor=0.5)

    one, two, three = (
        codec_named(str(tmp_path / name)) for name in ("one", "two", "three")
    )
    assert one.codec_id == two.codec_id
    assert one.codec_id != three.codec_id
    assert (one.channels, one.factor) == (16, 8)


@pytest.mark.slow
def test_flux_refuses_slices_that_blocks_of_eight_do_not_tile(tmp_path):
    save_autoencoder(tmp_path)

    with pytest.raises(VolumeError, match="multiples of 8"):
        FluxCodec(str(tmp_path)).encode(torch.zeros(1, 36, 32))


@pytest.mark.slow
def test_an_autoencoder_of_another_layout_is_refused(tmp_path):
    save_autoencoder(tmp_path / "four", latent_channels=4)
    save_autoencoder(tmp_path / "unshifted", shift_factor=None)

    with pytest.raises(PackageError, match="16 latent channels"):
        FluxCodec(str(tmp_path / "four"))
    with pytest.raises(PackageError, match="shift_factor"):
        FluxCodec(str(tmp_path / "unshifted"))


@pytest.mark.slow
def test_weights_that_are_a_pickle_are_not_loaded(tmp_path):
    save_autoencoder(tmp_path)
    (tmp_path / "diffusion_pytorch_model.safetensors").rename(
        tmp_path / "diffusion_pytorch_model.bin"
    )

    with pytest.raises(PackageError, match="safetensors"):
        FluxCodec(str(tmp_path))
