"""Every volume of a set, measured once: its features, its HU, its thumbnail."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ctflow_fed.ct.codec import SliceCodec
from ctflow_fed.ct.codec_error import there_and_back
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.errors import SettingsError, VolumeError
from ctflow_fed.evaluation.diversity import SIDE, thumbnail
from ctflow_fed.evaluation.features import (
    WINDOWS,
    FeatureCache,
    FeatureExtractor,
    HaarSlices,
    HaarVolumes,
    Measured,
    isotropic,
    planes,
    windowed,
)
from ctflow_fed.evaluation.hounsfield import PARTS, histogram_of
from ctflow_fed.evaluation.scans import Scan
from ctflow_fed.machine import one_thread_each
from ctflow_fed.model import default_device

__all__ = ["Lens", "Table", "measure_each", "measure_scans", "measure_volume"]

Table = dict[str, np.ndarray]
"""Arrays of a set by name, a volume a row."""


@dataclass(frozen=True, eq=False)
class Lens:
    """What volumes are looked at with: two extractors, and slices of each plane.

    Raises ``SettingsError`` where an extractor stands in the other's place.
    """

    slices: FeatureExtractor
    volumes: FeatureExtractor
    count: int = 16

    def __post_init__(self) -> None:
        if (self.slices.axes, self.volumes.axes) != (2, 3):
            raise SettingsError(
                "expected an extractor of slices and one of volumes, got others; "
                "exchange them"
            )
        if not 1 <= self.count <= 512:
            raise SettingsError(
                f"expected 1 to 512 slices of each plane, got {self.count}"
            )

    @classmethod
    def embedded(cls) -> "Lens":
        """Return the one that needs no download."""
        return cls(HaarSlices(), HaarVolumes())

    @property
    def key(self) -> list[object]:
        """What its numbers depend on."""
        ids = [each.extractor_id for each in (self.slices, self.volumes)]
        return ["measured", 1, *ids, self.count, WINDOWS, PARTS, SIDE]


def measure_scans(
    scans: Sequence[Scan],
    lens: Lens,
    cache: FeatureCache,
    *,
    codec: SliceCodec | None = None,
    told: str = "volumes",
) -> Table:
    """Measure every volume of a set, or take what the cache has of it.

    With a ``codec`` each is measured as it comes back from it. Raises ``VolumeError``
    as `measure_each` does.
    """
    device = default_device().type

    def measure(volume: CTVolume) -> Measured:
        return measure_volume(
            there_and_back(codec, volume, device) if codec else volume, lens
        )

    key = [*lens.key, codec.codec_id if codec else None]
    rows = measure_each(scans, measure, cache, key, told=told)
    return {
        name: np.stack([row[name].numpy() for row in rows])
        for name in (rows[0] if rows else ())
    }


def measure_each(
    scans: Sequence[Scan],
    measure: Callable[[CTVolume], Measured],
    cache: FeatureCache,
    key: list[object],
    *,
    told: str,
    read: Callable[[Scan], CTVolume] = Scan.read,
    expected: str = "CT in HU",
) -> list[Measured]:
    """Measure volumes side by side, or take from the cache what ``key`` gave of them.

    Raises ``VolumeError`` where one cannot be read; how many could not is told.
    """

    def work(scan: Scan) -> Measured | None:
        try:
            return cache.get([scan.digest, *key], lambda: measure(read(scan)))
        except VolumeError:
            return None

    with one_thread_each() as executor:
        found = executor.map(work, scans)
        bar = tqdm(found, told, len(scans), unit="volume", disable=None)
        rows = [row for row in bar if row is not None]
    unread = len(scans) - len(rows)
    if unread:
        raise VolumeError(
            f"expected {expected} as NIfTI, got {unread} of {len(scans)} files that "
            "cannot be read as such; remove them, or export them again"
        )
    return rows


def measure_volume(volume: CTVolume, lens: Lens) -> Measured:
    """Return the features of a volume, by window and plane, and what else is compared.

    ``WINDOW/PLANE`` is ``[slices, features]`` and ``WINDOW/volume`` ``[features]``.
    """
    coarse = isotropic(volume, lens.volumes.spacing_mm)
    fine = coarse
    if lens.slices.spacing_mm != lens.volumes.spacing_mm:
        fine = isotropic(volume, lens.slices.spacing_mm)
    with torch.inference_mode():
        parts = dict(_features(fine, coarse, lens))
        parts["thumbnail"] = thumbnail(coarse)
    return {**parts, "histogram": histogram_of(volume.hu)}


def _features(fine: Tensor, coarse: Tensor, lens: Lens) -> Iterator[tuple[str, Tensor]]:
    for window in WINDOWS:
        image = windowed(coarse, window)
        yield f"{window}/volume", lens.volumes.extract(image[None])[0].double()
        for plane, images in planes(windowed(fine, window), lens.count):
            yield f"{window}/{plane}", lens.slices.extract(images).double()
