"""How far a codec is from the scans of this site: there and back on some slices."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from ctflow_fed.ct.codec import SliceCodec
from ctflow_fed.ct.volume import AIR, HU_RANGE, CTVolume
from ctflow_fed.shapes import Slices

__all__ = [
    "RANGE",
    "TISSUES",
    "codec_numbers",
    "decoded_slices",
    "slice_numbers",
    "there_and_back",
]

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

    See `slice_numbers`.
    """
    chosen = np.linspace(0, len(volume.hu) - 1, SAMPLED + 2).round().astype(int)[1:-1]
    hu = torch.from_numpy(volume.hu[chosen]).float().clamp(-1000, 1000)
    numbers = slice_numbers(decoded_slices(codec, hu, device), hu)
    digits = {"psnr": 2, "ssim": 5}
    return {
        f"codec_{name}": round(value, digits.get(name, 3))
        for name, value in numbers.items()
    }


def slice_numbers(decoded: Slices, hu: Slices) -> dict[str, float]:
    """Return PSNR (dB), SSIM and the bias (HU) by tissue of slices from a codec.

    Both sides are cut to -1000 to 1000 HU, what a codec keeps. PSNR is 100 at most,
    that of equal slices. A tissue that is not there is left out.
    """
    hu, decoded = hu.clamp(-1000, 1000), decoded.clamp(-1000, 1000)
    error = ((decoded - hu) ** 2).mean().item()
    psnr = 10 * np.log10(RANGE**2 / error) if error else 100.0
    return {
        "psnr": min(100.0, float(psnr)),
        "ssim": _ssim(decoded, hu),
        **dict(_biases(decoded, hu)),
    }


def there_and_back(
    codec: SliceCodec, volume: CTVolume, device: str = "cpu"
) -> CTVolume:
    """Return a volume as it comes back from a codec, its size kept.

    See `decoded_slices`; HU are rounded.
    """
    hu = np.empty_like(volume.hu)
    for start in range(0, len(hu), AT_ONCE):
        part = torch.from_numpy(volume.hu[start : start + AT_ONCE]).float()
        decoded = decoded_slices(codec, part, device).round().clamp(*HU_RANGE)
        hu[start : start + AT_ONCE] = decoded.numpy()
    return replace(volume, hu=hu)


def decoded_slices(codec: SliceCodec, hu: Slices, device: str = "cpu") -> Slices:
    """Return slices of any size as they come back from a codec on ``device``.

    Air is added at the back and at the left of the patient where a side is no multiple
    of the codec's block, and taken away again.
    """
    _, rows, cols = hu.shape
    padded = pad(hu, (0, -cols % codec.factor, 0, -rows % codec.factor), value=AIR)
    decoded = codec.decode(codec.encode(padded.to(device))).float().cpu()
    return decoded[:, :rows, :cols]


def _biases(decoded: Slices, hu: Slices) -> Iterator[tuple[str, float]]:
    for tissue, (low, high) in TISSUES.items():
        inside = (hu >= low) & (hu < high)
        if inside.any():
            bias = (decoded - hu)[inside].mean().item()
            yield f"bias_{tissue}", bias


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
