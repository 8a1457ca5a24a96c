"""Volumes as a page carries them: for a viewer in three planes, and as pictures."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np

from ctflow_fed.ct.nifti import read_nifti, write_nifti
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.errors import VolumeError
from ctflow_fed.report.figures import View, views

__all__ = ["LARGEST_SIDE", "Shown", "packed", "show", "volumes_in"]

LARGEST_SIDE = 128
"""Voxels along an axis that a page carries; larger volumes are averaged down."""

ENDINGS = (".nii", ".nii.gz")

Side = Literal["real", "synthetic", "case"]
"""What a volume is said to be: a case of a reading study is one or the other."""


@dataclass(frozen=True)
class Shown:
    """A volume on a page: its side, its number there, and how it was made coarser.

    ``nifti`` is a packed NIfTI file in base64, ``views`` are for those without WebGL.
    """

    side: Side
    number: int
    size: str
    nifti: str = field(repr=False)
    views: tuple[View, ...] = field(repr=False)


def volumes_in(folder: Path) -> list[Path]:
    """Return the NIfTI files of a folder, by name.

    Raises ``VolumeError`` where there is none.
    """
    found = sorted(
        path for path in folder.glob("*") if path.name.lower().endswith(ENDINGS)
    )
    if not found:
        raise VolumeError(
            "expected a folder of NIfTI volumes, found none in it; name another"
        )
    return found


def show(paths: Sequence[Path], side: Side) -> list[Shown]:
    """Read volumes and pack them for a page; no file name gets onto it."""
    return [
        packed(read_nifti(path), side, number)
        for number, path in enumerate(paths, start=1)
    ]


def packed(volume: CTVolume, side: Side, number: int) -> Shown:
    """Pack a volume for a page."""
    coarse = _coarse(volume)
    sizes = [" x ".join(map(str, each.hu.shape)) for each in (volume, coarse)]
    size = sizes[0] if sizes[0] == sizes[1] else f"{sizes[0]}, shown as {sizes[1]}"
    with TemporaryDirectory() as folder:
        path = Path(folder, "shown.nii.gz")
        write_nifti(coarse, path)
        nifti = base64.b64encode(path.read_bytes()).decode()
    return Shown(side, number, size, nifti, views(volume))


def _coarse(volume: CTVolume) -> CTVolume:
    """Average blocks of voxels until no side is longer than a page carries."""
    block = [-(-side // LARGEST_SIDE) for side in volume.hu.shape]
    if block == [1, 1, 1]:
        return volume
    counts = [side // by for side, by in zip(volume.hu.shape, block, strict=True)]
    whole = tuple(slice(n * by) for n, by in zip(counts, block, strict=True))
    parts = [each for pair in zip(counts, block, strict=True) for each in pair]
    hu = volume.hu[whole].reshape(parts).mean((1, 3, 5), dtype=np.float32)
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ ((np.array(block) - 1) / 2)
    affine[:3, :3] *= block
    return CTVolume(hu.round().astype(np.int16), affine)
