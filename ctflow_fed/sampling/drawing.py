"""The latents of whole volumes, level by level of a plan."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from ctflow_fed.clips import (
    CLIP_SLICES,
    ClipPlan,
    Level,
    Span,
    clip_geometry,
    interpolated,
    written,
)
from ctflow_fed.ct.report import ReportTokens
from ctflow_fed.model import Conditions, FMvT, FrameConditions
from ctflow_fed.sampling.clips import clip_noise, draw_clips
from ctflow_fed.sampling.settings import SampleSettings
from ctflow_fed.shapes import Clip, Latents, Volumes

__all__ = ["Drawing", "chunks", "draw_volumes"]

Item = TypeVar("Item")

Given = Float[Tensor, "volumes channels given height width"]
"""The latents of the slices that a plan says are given."""

Job = tuple[int, int]
"""A volume, and a clip of the level, by number."""


@dataclass(frozen=True)
class Drawing:
    """What is asked for: of each volume the report, the span and the seed.

    All volumes have the same number of slices. ``edges`` are the latents of a black
    and of a white slice.
    """

    reports: ReportTokens
    spans: Sequence[Span]
    seeds: Sequence[int]
    edges: Latents


@torch.no_grad()
def draw_volumes(
    network: FMvT,
    drawing: Drawing,
    plan: ClipPlan,
    settings: SampleSettings,
    given: Given | None = None,
) -> Volumes:
    """Draw volumes by a plan: ``[volumes, channels, slices, height, width]``.

    The noise of a clip depends on the seed of its volume and on its place, not on its
    neighbours in the batch.
    """
    # A guided clip is evaluated with its report and without.
    at_once = settings.batch_clips // (1 if settings.guidance == 1 else 2)
    canvas = _Canvas(drawing, plan, next(network.parameters()).device, given)
    for number, level in enumerate(plan.levels):
        for jobs in _batches(level, len(drawing.seeds), at_once):
            conditions = canvas.conditions(level, jobs)
            noise = canvas.noise(number, level, jobs)
            canvas.put(level, jobs, draw_clips(network, noise, conditions, settings))
        canvas.close(level)
    return canvas.volumes


class _Canvas:
    """Volumes that are being drawn; they are black where they are not known yet."""

    def __init__(
        self,
        drawing: Drawing,
        plan: ClipPlan,
        device: torch.device,
        given: Given | None,
    ) -> None:
        self.drawing = drawing
        self.black = drawing.edges[:1].to(device)
        self.volumes = self.black.transpose(0, 1).repeat(
            len(drawing.seeds), 1, plan.slices, 1, 1
        )
        self.known = torch.zeros(plan.slices, dtype=torch.bool)
        if given is not None:
            self.volumes[:, :, list(plan.given)] = given.to(device)
            self.known[list(plan.given)] = True

    def conditions(self, level: Level, jobs: Sequence[Job]) -> Conditions:
        """Return what the network is told about some clips of a level."""
        device, told = self.volumes.device, [volume for volume, _ in jobs]
        reports, spans = self.drawing.reports, self.drawing.spans
        seen = torch.stack([self._known_of(level[index]) for _, index in jobs])
        context = [
            self._context(volume, level[index], row)
            for (volume, index), row in zip(jobs, seen, strict=True)
        ]
        geometry = [
            clip_geometry(level[index], spans[volume]) for volume, index in jobs
        ]
        return Conditions(
            torch.stack(context).transpose(1, 2),
            reports.tokens[told].to(device),
            reports.mask[told].to(device),
            FrameConditions.of(
                torch.cat(geometry).to(device),
                seen.to(device),
                torch.zeros(len(jobs), device=device),
            ),
        )

    def noise(self, number: int, level: Level, jobs: Sequence[Job]) -> Clip:
        """Return the noise that some clips of a level begin with."""
        _, channels, _, *size = self.volumes.shape
        noises = [
            clip_noise(
                (channels, len(level[index]), *size),
                self.drawing.seeds[volume],
                number,
                level[index][0],
            )
            for volume, index in jobs
        ]
        return torch.cat(noises).to(self.volumes.device)

    def put(self, level: Level, jobs: Sequence[Job], clips: Clip) -> None:
        """Write what was not known of clips, up to where the next clip begins."""
        places = written(level, len(self.known))
        for (volume, index), clip in zip(jobs, clips, strict=True):
            for frame, place in enumerate(places[index]):
                if not self.known[place]:
                    self.volumes[volume, :, place] = clip[:, frame]

    def close(self, level: Level) -> None:
        """Note that the slices of a level are known from now on."""
        for clip in level:
            self.known[[place for place in clip if place < len(self.known)]] = True

    def _known_of(self, clip: Sequence[int]) -> Tensor:
        places = torch.tensor(clip)
        inside = places < len(self.known)
        return inside & self.known[places.clamp(max=len(self.known) - 1)]

    def _context(self, volume: int, clip: Sequence[int], seen: Tensor) -> Latents:
        places = torch.tensor(clip).clamp(max=len(self.known) - 1)
        frames = self.volumes[volume][:, places].transpose(0, 1)
        return interpolated(frames, clip, seen, self.black)


def chunks(items: list[Item], size: int) -> Iterator[list[Item]]:
    """Yield the items, at most ``size`` at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _batches(level: Level, volumes: int, batch_clips: int) -> Iterator[list[Job]]:
    """Cut the clips of all volumes into batches of equal length and bounded size."""
    for length in sorted({len(clip) for clip in level}):
        jobs = [
            (volume, index)
            for volume in range(volumes)
            for index, clip in enumerate(level)
            if len(clip) == length
        ]
        yield from chunks(jobs, max(1, batch_clips * CLIP_SLICES // length))
