"""How much of real scans a codec keeps: the first check of the paper."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64

from ctflow_fed.ct.codec import SliceCodec
from ctflow_fed.ct.codec_error import RANGE, TISSUES, decoded_slices, slice_numbers
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.errors import MissingExtraError, SettingsError
from ctflow_fed.evaluation.features import FeatureCache
from ctflow_fed.evaluation.figure import Evaluation, Figure, not_measured
from ctflow_fed.evaluation.measuring import measure_each
from ctflow_fed.evaluation.nodules import DIAMETERS_MM, contrast_kept
from ctflow_fed.evaluation.scans import Scan
from ctflow_fed.evaluation.scores import Interval, draw_patients, interval
from ctflow_fed.model import default_device
from ctflow_fed.shapes import Slices

__all__ = ["codec_measures", "measure_codec", "multiscale_ssim"]

SLICES = 24
"""Slices of a volume that are compared, evenly over it."""

KERNEL = 11
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of MS-SSIM, for each scale (Wang et al. 2003)."""

DRAWS = 2000


@dataclass(frozen=True)
class _Convention:
    """When a measure passes: between two bounds."""

    low: float
    high: float
    told: str
    unit: str = ""

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high


def _conventions() -> dict[tuple[str, str], _Convention]:
    """Return what is measured, in the order in which it is shown.

    Only the bound on HU has a source; the others are proposals.
    """
    bias = "within 5 HU, what accreditation asks of water in a scanner (ACR)"
    kept = "from 0.9 to 1.1 of the contrast comes back (a proposal)"
    return {
        ("psnr", ""): _Convention(38, 100, "38 dB or more (a proposal)", "dB"),
        ("ssim", ""): _Convention(0.95, 1.01, "0.95 or more (a proposal)"),
        ("ms_ssim", ""): _Convention(0.98, 1.01, "0.98 or more (a proposal)"),
        **{("bias", tissue): _Convention(-5, 5, bias, "HU") for tissue in TISSUES},
        **{
            ("nodule_contrast", f"{size:g} mm"): _Convention(0.9, 1.1, kept)
            for size in DIAMETERS_MM
        },
    }


METHODS = {
    "psnr": "peak 2000 HU, mean of the squared error over slices",
    "ssim": "square window of 7 pixels",
    "ms_ssim": "Gaussian window of 11 pixels, as many of 5 scales as fit",
    "bias": "mean of decoded less real HU",
    "nodule_contrast": "discs of 40 HU planted in lung, one a slice, up to 8",
}


def measure_codec(
    scans: Sequence[Scan], codec: SliceCodec, cache: Path, *, seed: int = 0
) -> Evaluation:
    """Send slices of every volume through a codec, at their own pixels, and compare.

    Raises ``SettingsError`` without a volume and ``VolumeError`` where some cannot be
    read. What was measured of a volume stays in ``cache``.
    """
    if not scans:
        raise SettingsError(
            "expected a folder with NIfTI volumes, found none; name another folder"
        )
    rows = measure_each(
        scans,
        lambda volume: _as_tensors(codec_measures(codec, volume)),
        FeatureCache(cache),
        ["codec", 1, codec.codec_id, SLICES],
        told="volumes",
    )
    draws = draw_patients(
        [scan.patient for scan in scans], repeats=1, draws=DRAWS, seed=seed
    )
    figures = []
    for (name, part), convention in _conventions().items():
        key = f"{name}/{part}"
        values = np.array([float(row[key]) for row in rows])
        figures.append(_figure(name, part, values, draws.weights, convention))
    made = {"volumes": len(scans), "slices": SLICES, "codec": codec.codec_id}
    return Evaluation("codec", figures, {**made, "seed": seed})


def codec_measures(codec: SliceCodec, volume: CTVolume) -> dict[str, float]:
    """Return each measure of a volume by ``NAME/PART``; NaN where there is none."""
    chosen = np.linspace(0, len(volume.hu) - 1, SLICES).round().astype(int)
    hu = torch.from_numpy(volume.hu[np.unique(chosen)]).float()
    decoded = decoded_slices(codec, hu, default_device().type)
    found = slice_numbers(decoded, hu)
    biases = {
        f"bias/{tissue}": found.get(f"bias_{tissue}", float("nan"))
        for tissue in TISSUES
    }
    nodules = {
        f"nodule_contrast/{size:g} mm": contrast_kept(codec, volume, size)
        for size in DIAMETERS_MM
    }
    return {
        "psnr/": found["psnr"],
        "ssim/": found["ssim"],
        "ms_ssim/": multiscale_ssim(decoded, hu),
        **biases,
        **nodules,
    }


def multiscale_ssim(decoded: Slices, hu: Slices) -> float:
    """Return the MS-SSIM of slices at as many scales as fit; NaN below two."""
    try:
        from monai.metrics.regression import compute_ms_ssim
    except ImportError as error:
        raise MissingExtraError("monai", "evaluation") from error
    side = min(hu.shape[1:])
    fit = [n for n in (2, 3, 4, 5) if side // (n - 1) ** 2 >= KERNEL]
    if not fit:
        return float("nan")
    one, other = (x.clamp(-1000, 1000)[:, None] + RANGE / 2 for x in (decoded, hu))
    values = compute_ms_ssim(
        one, other, spatial_dims=2, data_range=RANGE, weights=WEIGHTS[: fit[-1]]
    )
    return float(values.mean())


def _figure(
    name: str,
    part: str,
    values: Float64[np.ndarray, " volumes"],
    weights: Float64[np.ndarray, "draws volumes"],
    convention: _Convention,
) -> Figure:
    """Return the mean over volumes, with the bootstrap over patients."""
    there = np.isfinite(values)
    if not there.any():
        reason = "no volume has it at its pixels"
        return not_measured(name, part, convention.told, reason)
    sums = weights[:, there].sum(1)
    with np.errstate(invalid="ignore"):  # a draw may lack all that have it
        resampled = weights[:, there] @ values[there] / sums
    value: Interval = interval(float(values[there].mean()), resampled)
    return Figure(
        name=name,
        part=part,
        n=int(there.sum()),
        value=value,
        unit=convention.unit,
        convention=convention.told,
        verdict="pass" if convention.holds(value.value) else "fail",
        method=f"{METHODS[name]}; mean over volumes, bootstrap over patients",
    )


def _as_tensors(numbers: Mapping[str, float]) -> dict[str, torch.Tensor]:
    return {
        name: torch.tensor(value, dtype=torch.float64)
        for name, value in numbers.items()
    }
