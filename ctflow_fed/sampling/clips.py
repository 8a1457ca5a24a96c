"""The latents of whole volumes, clip by clip."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ctflow_fed.clips import CLIP_SLICES, clip_geometry
from ctflow_fed.ct.report import ReportTokens
from ctflow_fed.flow import SOLVERS, shifted, time_grid
from ctflow_fed.model import FMvT
from ctflow_fed.sampling.settings import SampleSettings
from ctflow_fed.seeds import derive_seed
from ctflow_fed.shapes import Clip, Geometry

__all__ = ["draw_volumes"]


@torch.no_grad()
def draw_volumes(
    network: FMvT,
    reports: ReportTokens,
    black: Tensor,
    *,
    slices: int,
    spacing_mm: Sequence[float],
    seeds: Sequence[int],
    settings: SampleSettings,
) -> Clip:
    """Draw one volume a report with the paper's autoregressive plan.

    The first clip begins from a black context, every other from the clip before it.
    ``black`` is the latent of a black slice ``[channels, height, width]``; the result
    is ``[volumes, channels, slices, height, width]``. The noise of a volume depends on
    its seed alone, not on its neighbours in the batch.
    """
    device = next(network.parameters()).device
    context = black[None, :, None].expand(len(seeds), -1, CLIP_SLICES, -1, -1)
    context = context.to(device)
    drawn = []
    for start in range(0, slices, CLIP_SLICES):
        noise = torch.cat([_noise(black, seed, start) for seed in seeds])
        geometry = [clip_geometry(start, slices, each) for each in spacing_mm]
        context = _draw_clips(
            network,
            noise.to(device),
            context,
            reports,
            torch.cat(geometry).to(device),
            settings,
        )
        drawn.append(context)
    return torch.cat(drawn, dim=2)[:, :, :slices]


def _draw_clips(
    network: FMvT,
    noise: Clip,
    context: Clip,
    reports: ReportTokens,
    geometry: Geometry,
    settings: SampleSettings,
) -> Clip:
    """Follow the flow from noise to one clip a volume."""
    tokens, mask = reports.tokens.to(noise.device), reports.mask.to(noise.device)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return network(
            x,
            t,
            context=context,
            report=tokens,
            report_mask=mask,
            geometry=geometry,
        )

    times = shifted(time_grid(settings.steps), settings.time_shift).to(noise.device)
    return SOLVERS[settings.solver](velocity, noise, times)


def _noise(black: Tensor, seed: int, start: int) -> Clip:
    generator = torch.Generator().manual_seed(derive_seed("sample", seed, start))
    channels, height, width = black.shape
    return torch.randn(1, channels, CLIP_SLICES, height, width, generator=generator)
