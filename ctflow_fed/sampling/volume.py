"""A volume from a report."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ctflow_fed.clips import (
    CLIP_SLICES,
    ClipPlan,
    Span,
    anchored,
    autoregressive,
    between,
    extend,
)
from ctflow_fed.ct.codec import SliceCodec, edges_of
from ctflow_fed.ct.report import ReportEncoder, ReportTokens
from ctflow_fed.ct.volume import AIR, CTVolume
from ctflow_fed.errors import MismatchError, SettingsError
from ctflow_fed.model import ModelPackage, default_device
from ctflow_fed.model.package import check_kind
from ctflow_fed.sampling.ctflow import draw_like_ctflow
from ctflow_fed.sampling.drawing import Drawing, draw_volumes
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
        check_kind("codec", package.provenance.codec_id, codec.codec_id)
        check_kind("report encoder", package.provenance.encoder_id, encoder.encoder_id)
        self.device = default_device()
        self.network = package.network.to(self.device).eval()
        self.provenance = package.provenance
        self.codec = codec
        self.encoder = encoder
        self.image_size = package.provenance.latent_size[0] * codec.factor
        self.edges = edges_of(codec, self.image_size, self.device.type)
        self.settings = settings or SampleSettings()
        self.plan = _plan_of(package.provenance.method, self.settings.plan)

    def sample(self, requests: Sequence[VolumeRequest]) -> list[CTVolume]:
        """Draw one volume a request; requests of equal length are drawn together.

        What is drawn for a request does not depend on its neighbours, but for
        differences of less than one HU between batches of different sizes. The plan
        ``ctflow`` ends a volume where the network draws white, with fewer slices than
        asked for; every other gives exactly as many.
        """
        volumes: dict[int, CTVolume] = {}
        for slices in sorted({request.slices for request in requests}):
            same = [i for i, request in enumerate(requests) if request.slices == slices]
            drawn = self._draw([requests[i] for i in same])
            volumes |= dict(zip(same, drawn, strict=True))
        return [volumes[index] for index in range(len(requests))]

    def extend(
        self, volume: CTVolume, report: str, *, below: int, above: int, seed: int
    ) -> CTVolume:
        """Draw slices under and over a real volume, at its own slice spacing.

        The volume is brought to the pixels of the model (`CTVolume.squared`); its own
        slices stay as they are. Refused with `MismatchError` for a model of the
        paper's method.
        """
        plan = extend(len(volume.hu), below, above, self.settings.clip_slices)
        return self._complete(volume, report, plan, volume.spacing[0], seed)

    def between(
        self, volume: CTVolume, report: str, *, factor: int, seed: int
    ) -> CTVolume:
        """Draw ``factor - 1`` slices between each two of a volume; see `extend`."""
        plan = between(len(volume.hu), factor, self.settings.clip_slices)
        return self._complete(volume, report, plan, volume.spacing[0] / factor, seed)

    def redraw(self, volume: CTVolume, report: str, *, seed: int) -> CTVolume:
        """Draw every 16 slices of a real volume anew, from the real 16 below them.

        The lowest 16 stay as they are. Errors do not add up in it ("teacher forcing"),
        so what it lacks is not drift. Refused as `extend` is.
        """
        _refuse_paper_s(self.plan)
        real = volume.squared(self.image_size)
        latents = self.codec.encode(torch.from_numpy(real.hu).float().to(self.device))
        slices, told = len(real.hu), self._tokens([report])
        span = Span(slices, volume.spacing[0])
        hu = real.hu.copy()
        for start in range(CLIP_SLICES, slices, CLIP_SLICES):
            clip = tuple(range(start - CLIP_SLICES, start + CLIP_SLICES))
            plan = ClipPlan(slices, ((clip,),), clip[:CLIP_SLICES])
            drawing = Drawing(told, [span], [seed], self.edges)
            known = latents[start - CLIP_SLICES : start].transpose(0, 1)[None]
            (drawn,) = draw_volumes(self.network, drawing, plan, self.settings, known)
            above = drawn[:, start : start + CLIP_SLICES].transpose(0, 1)
            hu[start : start + CLIP_SLICES] = self._decode(above)
        return CTVolume(hu, real.affine, (*real.notes, "redrawn from slices below"))

    def _draw(self, requests: Sequence[VolumeRequest]) -> list[CTVolume]:
        slices, known = requests[0].slices, self.provenance
        height_mm = known.spacing[0] * known.slices
        spans = [Span(slices, each.slice_mm or height_mm / slices) for each in requests]
        texts = [each.report for each in requests]
        seeds = [each.seed for each in requests]
        if self.plan == "ctflow":
            drawing = Drawing(self._told(texts, slices), spans, seeds, self.edges)
            latents = draw_like_ctflow(self.network, drawing, self.settings)
        else:
            drawing = Drawing(self._tokens(texts), spans, seeds, self.edges)
            drawn = draw_volumes(
                self.network, drawing, self._plan(slices), self.settings
            )
            latents = [each.transpose(0, 1) for each in drawn]
        return [
            CTVolume(self._decode(volume), self._affine(span.spacing_mm))
            for volume, span in zip(latents, spans, strict=True)
        ]

    def _plan(self, slices: int) -> ClipPlan:
        settings = self.settings
        if self.plan == "autoregressive":
            return autoregressive(slices, settings.clip_slices, settings.overlap)
        return anchored(slices, settings.clip_slices)

    def _complete(
        self, volume: CTVolume, report: str, plan: ClipPlan, slice_mm: float, seed: int
    ) -> CTVolume:
        """Draw what a plan lacks of a real volume."""
        _refuse_paper_s(self.plan)
        real = volume.squared(self.image_size)
        latents = self.codec.encode(torch.from_numpy(real.hu).float().to(self.device))
        drawing = Drawing(
            self._tokens([report]), [Span(plan.slices, slice_mm)], [seed], self.edges
        )
        (drawn,) = draw_volumes(
            self.network,
            drawing,
            plan,
            self.settings,
            latents.transpose(0, 1)[None],
        )
        hu = self._decode(drawn.transpose(0, 1))
        hu[list(plan.given)] = real.hu
        affine = real.affine.copy()
        affine[:3, 0] *= slice_mm / real.spacing[0]
        affine[:3, 3] -= plan.given[0] * affine[:3, 0]
        drawn_slices = plan.slices - len(real.hu)
        note = f"{drawn_slices} of {plan.slices} slices are synthetic"
        return CTVolume(hu, affine, (*real.notes, note))

    def _told(self, texts: Sequence[str], slices: int) -> ReportTokens:
        """Encode reports for the paper's plan.

        The released network was told the number of slices in words; a network that was
        trained here was told what its reports say.
        """
        if self.provenance.steps == 0:
            texts = [f"{text} Length: {slices}" for text in texts]
        return self._tokens(texts)

    def _tokens(self, texts: Sequence[str]) -> ReportTokens:
        """Encode reports; an empty one is no report at all."""
        tokens = self.encoder.encode(texts)
        told = torch.tensor([bool(text.strip()) for text in texts])
        return ReportTokens(tokens.tokens, tokens.mask & told[:, None])

    def _decode(self, latents: Latents) -> HU:
        """Decode where the network runs, so that a GPU decodes too."""
        hu = self.codec.decode(latents.to(self.device)).round().clamp(AIR, HIGHEST_HU)
        return hu.to(torch.int16).cpu().numpy()

    def _affine(self, slice_mm: float) -> Affine:
        """Place a volume with its first voxel at the origin, in canonical order."""
        _, row_mm, col_mm = self.provenance.spacing
        affine = np.zeros((4, 4))
        affine[2, 0] = slice_mm  # slices go to superior
        affine[1, 1] = -row_mm  # rows to posterior
        affine[0, 2] = -col_mm  # columns to the patient's left
        affine[3, 3] = 1.0
        return affine


def _plan_of(method: str, chosen: str | None) -> str:
    """Return the plan for a model of a method; one of the other method is refused."""
    plan = chosen or ("ctflow" if method == "ctflow" else "anchored")
    if (plan == "ctflow") != (method == "ctflow"):
        raise MismatchError(
            f"expected a plan for a model of the method {method}, got {plan}; leave "
            "the plan out, or train the model further with the other method"
        )
    return plan


def _refuse_paper_s(plan: str) -> None:
    if plan == "ctflow":
        raise MismatchError(
            "expected a model that knows slices of its own clip, got one of the "
            "paper's method; train it further with the method known"
        )
