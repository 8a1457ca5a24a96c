"""The latents of whole volumes, as the paper draws them."""

import torch
from torch import Tensor

from ctflow_fed.clips import CLIP_SLICES
from ctflow_fed.model import Conditions, FMvT
from ctflow_fed.sampling.clips import clip_noise, draw_clips
from ctflow_fed.sampling.drawing import Drawing, chunks
from ctflow_fed.sampling.settings import SampleSettings
from ctflow_fed.shapes import Clip, Latents

__all__ = ["draw_like_ctflow"]

WHITE_SHARE = 0.9
WHITE_DISTANCE = 0.1
"""A slice is white when this share of its latents is this near to those of white."""


@torch.no_grad()
def draw_like_ctflow(
    network: FMvT, drawing: Drawing, settings: SampleSettings
) -> list[Latents]:
    """Draw volumes as the paper does, each until it is white: ``[slices, C, h, w]``.

    The first clip has a black context, each other the clip below it. A clip whose first
    slice is white ends its volume, and white slices at its end are dropped; without one
    it has the slices of its span. The network is used as released.
    """
    device = next(network.parameters()).device
    black, white = drawing.edges.to(device)
    most, count = drawing.spans[0].slices, len(drawing.seeds)
    context = black[None, :, None].repeat(count, 1, CLIP_SLICES, 1, 1)
    drawn: list[list[Tensor]] = [[] for _ in range(count)]
    growing = list(range(count))
    for start in range(0, most, CLIP_SLICES):
        for part in chunks(growing, settings.batch_clips):
            context[part] = _next_clips(
                network, drawing, settings, context[part], part, start
            )
        growing = [n for n in growing if not _is_white(context[n, :, 0], white)]
        for number in growing:
            drawn[number].append(context[number].transpose(0, 1).clone())
    return [_trimmed(parts, white, most) for parts in drawn]


def _next_clips(
    network: FMvT,
    drawing: Drawing,
    settings: SampleSettings,
    context: Clip,
    part: list[int],
    start: int,
) -> Clip:
    """Draw the clips of some volumes that lie on the clips of ``context``."""
    shape = tuple(context.shape[1:])
    noise = [clip_noise(shape, drawing.seeds[number], start) for number in part]
    reports = drawing.reports
    told = Conditions(
        context,
        reports.tokens[part].to(context.device),
        reports.mask[part].to(context.device),
    )
    return draw_clips(network, torch.cat(noise).to(context.device), told, settings)


def _is_white(frame: Tensor, white: Tensor) -> bool:
    return bool(((frame - white).abs() < WHITE_DISTANCE).float().mean() >= WHITE_SHARE)


def _trimmed(parts: list[Tensor], white: Tensor, most: int) -> Latents:
    """Join clips and drop the white slices at the end; at least one slice is left."""
    if not parts:
        return white[None]
    volume = torch.cat(parts)[:most]
    while len(volume) > 1 and _is_white(volume[-1], white):
        volume = volume[:-1]
    return volume
