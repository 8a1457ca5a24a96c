"""A volume from a report."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ctflow_fed.clips import BLACK_HU
from ctflow_fed.ct.codec import SliceCodec
from ctflow_fed.ct.report import ReportEncoder
from ctflow_fed.ct.volume import AIR, CTVolume
from ctflow_fed.errors import MismatchError, SettingsError
from ctflow_fed.model import ModelPackage, default_device
from ctflow_fed.sampling.clips import draw_volumes
from ctflow_fed.sampling.settings import SampleSettings
from ctflow_fed.shapes import HU, Affine, Latents

__all__ = ["VolumeRequest", "VolumeSampler"]

HIGHEST_HU = 3071
"""The top of the 12-bit scale that scanners write."""


@dataclass(frozen=True, kw_only=True)
class VolumeRequest:
    """What to draw: a report, a number of slices, their spacing in mm, a seed.

    Without a ``slice_mm`` the volume becomes as high as a typical one of the model's
    training data, whatever its number of slices.
    """

    report: str
    slices: int
    seed: int
    slice_mm: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.slices <= 2048:
            raise SettingsError(
                f"slices must lie between 1 and 2048, got {self.slices}"
            )
        if self.slice_mm is not None and not 0.1 <= self.slice_mm <= 20:
            raise SettingsError("the slice spacing must lie between 0.1 and 20 mm")


class VolumeSampler:
    """Draws volumes with one model; made once, used for many requests.

    Raises `MismatchError` when the codec or the report encoder is not the one that the
    model was trained with.
    """

    def __init__(
        self,
        package: ModelPackage,
        codec: SliceCodec,
        encoder: ReportEncoder,
        settings: SampleSettings | None = None,
    ) -> None:
        _check_same("codec", package.provenance.codec_id, codec.codec_id)
        _check_same("report encoder", package.provenance.encoder_id, encoder.encoder_id)
        self.network = package.network.to(default_device()).eval()
        self.provenance = package.provenance
        self.codec = codec
        self.encoder = encoder
        self.settings = settings or SampleSettings()

    def sample(self, requests: Sequence[VolumeRequest]) -> list[CTVolume]:
        """Draw one volume a request; requests of equal length are drawn together.

        What is drawn for a request does not depend on its neighbours, but for
        differences of less than one HU between batches of different sizes.
        """
        volumes: dict[int, CTVolume] = {}
        for slices in sorted({request.slices for request in requests}):
            same = [i for i, request in enumerate(requests) if request.slices == slices]
            drawn = self._draw([requests[i] for i in same], slices)
            volumes |= dict(zip(same, drawn, strict=True))
        return [volumes[index] for index in range(len(requests))]

    def _draw(self, requests: Sequence[VolumeRequest], slices: int) -> list[CTVolume]:
        height_mm = self.provenance.spacing[0] * self.provenance.slices
        spacing_mm = [request.slice_mm or height_mm / slices for request in requests]
        latents = draw_volumes(
            self.network,
            self.encoder.encode([request.report for request in requests]),
            self._black()[0],
            slices=slices,
            spacing_mm=spacing_mm,
            seeds=[request.seed for request in requests],
            settings=self.settings,
        )
        return [
            CTVolume(self._decode(volume.transpose(0, 1).cpu()), self._affine(mm))
            for volume, mm in zip(latents, spacing_mm, strict=True)
        ]

    def _black(self) -> Latents:
        height, width = self.provenance.latent_size
        factor = self.codec.factor
        return self.codec.encode(
            torch.full((1, height * factor, width * factor), BLACK_HU)
        )

    def _decode(self, latents: Latents) -> HU:
        hu = self.codec.decode(latents).round().clamp(AIR, HIGHEST_HU)
        return hu.to(torch.int16).numpy()

    def _affine(self, slice_mm: float) -> Affine:
        """Place a volume with its first voxel at the origin, in canonical order."""
        _, row_mm, col_mm = self.provenance.spacing
        affine = np.zeros((4, 4))
        affine[2, 0] = slice_mm  # slices go to superior
        affine[1, 1] = -row_mm  # rows to posterior
        affine[0, 2] = -col_mm  # columns to the patient's left
        affine[3, 3] = 1.0
        return affine


def _check_same(part: str, expected: str, got: str) -> None:
    if expected != got:
        raise MismatchError(
            f"the model was trained with another {part} than the one given; "
            f"name that one, or use a model made with this one"
        )
