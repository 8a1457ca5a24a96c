"""How far a codec is from the scans of this site: there and back on some slices."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ctflow_fed.ct.codec import SliceCodec
from ctflow_fed.ct.volume import AIR, HU_RANGE, CTVolume
from ctflow_fed.shapes import Slices

__all__ = ["TISSUES", "codec_numbers", "there_and_back"]

TISSUES = {
    "air": (-1000, -950),
    "lung": (-950, -500),
    "fat": (-150, -30),
    "soft": (-30, 100),
    "bone": (300, 1000),
}
"""The HU of each tissue, from and below."""

SAMPLED = 6
AT_ONCE = 16
"""Slices that are floats at a time."""

RANGE = 2000.0
"""Of the HU that a codec keeps, -1000 to 1000: the peak of PSNR and SSIM."""

WINDOW = 7


def codec_numbers(
    codec: SliceCodec, volume: CTVolume, device: str = "cpu"
) -> dict[str, float]:
    """Return PSNR (dB), SSIM and the bias (HU) by tissue of six slices of a volume.

    Both sides are cut to -1000 to 1000 HU, what a codec keeps. PSNR of equal slices is
    written 100. A tissue that is not there is left out.
    """
    chosen = np.linspace(0, len(volume.hu) - 1, SAMPLED + 2).round().astype(int)[1:-1]
    hu = torch.from_numpy(volume.hu[chosen]).float().clamp(-1000, 1000)
    decoded = codec.decode(codec.encode(hu.to(device))).cpu().float()
    decoded = decoded.clamp(-1000, 1000)
    error = ((decoded - hu) ** 2).mean().item()
    psnr = 10 * np.log10(RANGE**2 / error) if error else 100.0
    return {
        "codec_psnr": min(100.0, round(float(psnr), 2)),
        "codec_ssim": round(_ssim(decoded, hu), 5),
        **dict(_biases(decoded, hu)),
    }


def there_and_back(codec: SliceCodec, volume: CTVolume) -> CTVolume:
    """Return a volume as it comes back from a codec, its size kept.

    Air is added below and to the left where a side is no multiple of the codec's block.
    """
    _, rows, cols = volume.hu.shape
    margins = [(0, 0), (0, -rows % codec.factor), (0, -cols % codec.factor)]
    padded = torch.from_numpy(np.pad(volume.hu, margins, constant_values=AIR))
    hu = np.empty_like(volume.hu)
    for start in range(0, len(hu), AT_ONCE):
        part = padded[start : start + AT_ONCE].float()
        decoded = codec.decode(codec.encode(part)).round().clamp(*HU_RANGE)
        hu[start : start + AT_ONCE] = decoded[:, :rows, :cols].cpu().numpy()
    return replace(volume, hu=hu)


def _biases(decoded: Slices, hu: Slices) -> Iterator[tuple[str, float]]:
    for tissue, (low, high) in TISSUES.items():
        inside = (hu >= low) & (hu < high)
        if inside.any():
            bias = (decoded - hu)[inside].mean().item()
            yield f"codec_bias_{tissue}", round(bias, 3)


def _ssim(one: Slices, other: Slices) -> float:
    """Return the structural similarity (Wang et al. 2004, with a square window)."""
    mean_1, mean_2 = _mean(one), _mean(other)
    variance_1 = _mean(one**2) - mean_1**2
    variance_2 = _mean(other**2) - mean_2**2
    covariance = _mean(one * other) - mean_1 * mean_2
    c_1, c_2 = (0.01 * RANGE) ** 2, (0.03 * RANGE) ** 2
    luminance = (2 * mean_1 * mean_2 + c_1) / (mean_1**2 + mean_2**2 + c_1)
    structure = (2 * covariance + c_2) / (variance_1 + variance_2 + c_2)
    return (luminance * structure).mean().item()


def _mean(values: Slices) -> Float[Tensor, "slices down across"]:
    """Return the mean of every square window, at double precision."""
    return avg_pool2d(values.double()[:, None], WINDOW, stride=1)[:, 0]
