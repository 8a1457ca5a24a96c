"""What is followed from the lowest slice of a volume to the highest."""

import itertools

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.evaluation.features import HaarSlices, isotropic, windowed
from ctflow_fed.shapes import HU

__all__ = [
    "BLOCKS",
    "CONTRASTS",
    "alike",
    "jumps_of",
    "profile_of",
    "without_repeated_end",
]

BLOCKS = 8
"""Parts of the height of a volume that are compared each with its own."""

CONTRASTS = ("mean", "std", "sharpness", "body_area", "lung_area")
"""What is compared between the first and the last slices."""

BODY_HU = -500
BONE_HU = 300
LUNG_HU = (-950, -500)

Row = Float64[np.ndarray, " _"]


def profile_of(volume: CTVolume) -> dict[str, Tensor]:
    """Return numbers of every slice, and of every two neighbours, float64.

    Of slices: mean and standard deviation (HU), ``sharpness`` (variance of the
    Laplacian), areas (cm^2) and the middles of body and bone (mm). Of neighbours:
    ``jump`` (mean of |HU difference|), ``ncc`` and ``shift`` (pixels, by phase
    correlation). ``blocks`` are mean features of eight parts of the height,
    ``repeated`` counts slices that were left out (`without_repeated_end`).
    """
    given = len(volume.hu)
    volume = without_repeated_end(volume)
    hu = volume.hu.clip(-1000, 1000).astype(np.float32)
    laplacian = hu[:, 1:-1, 1:-1] * 4 - hu[:, :-2, 1:-1] - hu[:, 2:, 1:-1]
    laplacian -= hu[:, 1:-1, :-2] + hu[:, 1:-1, 2:]
    slice_mm, row_mm, col_mm = volume.spacing
    pixel_cm2 = row_mm * col_mm / 100
    lung = (hu >= LUNG_HU[0]) & (hu < LUNG_HU[1])
    rows = {
        "mean": hu.mean((1, 2)),
        "std": hu.std((1, 2)),
        "sharpness": laplacian.var((1, 2)),
        "body_area": (hu > BODY_HU).sum((1, 2)) * pixel_cm2,
        "lung_area": lung.sum((1, 2)) * pixel_cm2,
        "jump": jumps_of(volume.hu),
        "ncc": _correlations(hu),
        "shift": _shifts(hu),
        "slice_mm": slice_mm,
        "size": hu.shape[1],
        "repeated": given - len(hu),
    }
    for name, mask in (("body", hu > BODY_HU), ("bone", hu > BONE_HU)):
        for axis, mm in ((1, row_mm), (2, col_mm)):
            rows[f"{name}_{('row', 'col')[axis - 1]}"] = _middles(mask, axis) * mm
    profile = {
        name: torch.tensor(row, dtype=torch.float64) for name, row in rows.items()
    }
    return profile | {"blocks": _blocks(volume)}


def jumps_of(hu: HU) -> Row:
    """Return the mean absolute difference, in HU, of each two neighbours."""
    pairs = itertools.pairwise(hu)
    jumps = [np.abs(b - a.astype(np.float32)).mean() for a, b in pairs]
    return np.array(jumps, np.float64)


def without_repeated_end(volume: CTVolume) -> CTVolume:
    """Return a volume without slices at its end that repeat the one below them.

    Some pipelines fill short volumes with them, which would flatter every curve.
    """
    last = len(volume.hu)
    while last > 1 and np.array_equal(volume.hu[last - 1], volume.hu[last - 2]):
        last -= 1
    return CTVolume(volume.hu[:last], volume.affine, volume.notes)


def alike(volume: CTVolume, slice_mm: float, size: int) -> CTVolume:
    """Return a real volume at the pixels and the slice distance of drawn ones.

    Of finer slices the nearest are taken, so that none is a mixture; coarser slices
    stay as they are.
    """
    if volume.hu.shape[1:] != (size, size):
        volume = volume.squared(size)
    step = slice_mm / volume.spacing[0]
    if step <= 1:
        return volume
    at = np.arange(0, len(volume.hu) - 0.5, step).round().astype(int)
    affine = volume.affine.copy()
    affine[:3, 0] *= step
    return CTVolume(volume.hu[at], affine, volume.notes)


def _correlations(hu: np.ndarray) -> Row:
    """Return the correlation of each two neighbours; NaN where one is flat."""
    centred = hu - hu.mean((1, 2), keepdims=True)
    lengths = np.sqrt((centred**2).sum((1, 2)))
    products = (centred[:-1] * centred[1:]).sum((1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(products / (lengths[:-1] * lengths[1:]), np.float64)


def _shifts(hu: np.ndarray) -> Row:
    """Return by how many pixels each slice is moved against the one below it."""
    waves = np.fft.rfft2(hu)
    across = waves[:-1] * waves[1:].conj()
    across /= np.abs(across) + 1e-9
    peaks = np.fft.irfft2(across, hu.shape[1:]).reshape(len(across), -1).argmax(1)
    moved = np.stack(np.unravel_index(peaks, hu.shape[1:]), 1)
    sides = np.array(hu.shape[1:])
    moved = (moved + sides // 2) % sides - sides // 2
    return np.asarray(np.hypot(*moved.T.astype(np.float64)))


def _middles(mask: np.ndarray, axis: int) -> Row:
    """Return the mean index along an axis of what a mask holds of each slice."""
    counts = mask.sum(3 - axis)
    with np.errstate(invalid="ignore"):
        return np.asarray(counts @ np.arange(counts.shape[1]) / counts.sum(1))


def _blocks(volume: CTVolume) -> Tensor:
    """Return the mean features of the slices of each part of the height."""
    extractor = HaarSlices()
    image = windowed(isotropic(volume, extractor.spacing_mm), "lung")
    with torch.inference_mode():
        features = extractor.extract(image).double()
    parts = features.tensor_split(BLOCKS)
    return torch.stack([part.mean(0) for part in parts])
