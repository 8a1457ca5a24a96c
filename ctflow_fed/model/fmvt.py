"""FMvT, the flow-matching video transformer of CTFlow.

What is unusual about it:

* noisy clip and context clip are joined on channels before the patches are taken;
* attention is factored: within a frame, then along frames at one place;
* the report enters by cross-attention in every block;
* one modulation vector of the time is shared by all blocks, each adds its own table;
* new models guess the clean clip, from which the velocity follows;
* slice geometry is our extension, added to the patches and zero until trained.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ctflow_fed.clips import QUANTITIES
from ctflow_fed.model.block import FMvTBlock, modulate
from ctflow_fed.model.embed import (
    PATCH,
    GeometryEmbedder,
    PatchEmbedder,
    ReportEmbedder,
    TimestepEmbedder,
    frame_positions,
    place_positions,
)
from ctflow_fed.model.presets import FMvTConfig
from ctflow_fed.seeds import derive_seed
from ctflow_fed.shapes import Clip, Geometry, Hidden, Time, TokenMask, Tokens

__all__ = ["FMvT", "fresh_network"]

SMALLEST_TIME = 0.05
"""Where the loss stops to grow as t falls; sampling never divides by a t of zero."""


class FMvT(nn.Module):
    """The velocity of a noisy clip, given its context and its report."""

    def __init__(self, config: FMvTConfig) -> None:
        super().__init__()
        self.config = config
        d = config.features
        self.x_embedder = PatchEmbedder(2 * config.latent_channels, d)
        self.t_embedder = TimestepEmbedder(d, config.timestep_scale)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(d, 6 * d))
        self.y_embedder = ReportEmbedder(
            config.report_features, d, unit=config.unit_report
        )
        self.geometry_embedder = GeometryEmbedder(QUANTITIES, d)
        self.blocks = nn.ModuleList(
            FMvTBlock(d, config.heads, scrambled_heads=config.scrambled_heads)
            for _ in range(config.layers)
        )
        self.final_layer = FinalLayer(d, config.latent_channels)
        self.apply(_xavier)
        self._start_from_zero()

    def _start_from_zero(self) -> None:
        """Initialise as CTFlow does: embedders small, last layers of branches zero."""
        for embedder in (self.t_embedder, self.t_block, self.y_embedder):
            for module in embedder.modules():
                if isinstance(module, nn.Linear):
                    nn.init.normal_(module.weight, std=0.02)
        for branch in ("geometry_embedder.proj", "final_layer.linear"):
            self._close(branch)
        for index in range(self.config.layers):
            self._close(f"blocks.{index}.attn_temp.proj")
            self._close(f"blocks.{index}.cross_attn.proj")

    def _close(self, name: str) -> None:
        """Let a branch give nothing until it is trained."""
        nn.init.zeros_(self.get_parameter(f"{name}.weight"))

    def forward(
        self,
        noisy: Clip,
        timestep: Time,
        *,
        context: Clip,
        report: Tokens,
        report_mask: TokenMask | None = None,
        geometry: Geometry | None = None,
    ) -> Clip:
        """Return ``noise - data`` as the network sees it.

        ``noisy`` and ``context`` are ``[batch, channels, frames, height, width]`` with
        even frames, height and width; ``timestep`` is 1 at noise and 0 at data;
        ``report`` is ``[batch, tokens, 768]`` and ``report_mask`` tells its real
        tokens (all, if none is given); ``geometry`` comes from
        `ctflow_fed.clips.clip_geometry`.
        """
        height, width = noisy.shape[-2] // PATCH, noisy.shape[-1] // PATCH
        d = self.config.features

        x = self.x_embedder(torch.cat([noisy, context], dim=1))
        x = x + place_positions(height, width, d).to(x)
        if geometry is not None:
            x = x + self.geometry_embedder(geometry)
        frames = frame_positions(x.shape[1], d).to(x)

        time = self.t_embedder(timestep)
        modulation = self.t_block(time).unflatten(1, (6, d))
        tokens = self.y_embedder(report)
        for index, block in enumerate(self.blocks):
            x = block(
                x, modulation, tokens, report_mask, frames if index == 0 else None
            )
        predicted = self.final_layer(x, time, height)
        if self.config.predicts_data:
            smallest = SMALLEST_TIME if self.training else 0.0
            return velocity_of_data(noisy, predicted, timestep.clamp(min=smallest))
        return predicted


def velocity_of_data(x_t: Clip, data: Clip, t: Time) -> Clip:
    """Return the velocity that leads from ``x_t`` to ``data``: ``(x_t - data) / t``."""
    return (x_t - data) / t[:, None, None, None, None]


class FinalLayer(nn.Module):
    """From features back to latents."""

    def __init__(self, features: int, channels: int) -> None:
        super().__init__()
        self.scale_shift_table = nn.Parameter(torch.randn(2, features) / features**0.5)
        self.linear = nn.Linear(features, PATCH**3 * channels)

    def forward(
        self, x: Hidden, time: Float[Tensor, "batch hidden"], height: int
    ) -> Clip:
        """Return ``[batch, channels, frames, height, width]`` of whole latents."""
        parts = (self.scale_shift_table + time[:, None])[:, :, None, None]
        shift, scale = parts.unbind(1)
        patches = self.linear(modulate(x, shift, scale))
        # A row of features holds its patch as (frame, row, column, channel).
        patches = patches.unflatten(2, (height, -1)).unflatten(
            4, (PATCH, PATCH, PATCH, -1)
        )
        b, t, h, w, *_, channels = patches.shape
        latents = patches.permute(0, 7, 1, 4, 2, 5, 3, 6)
        return latents.reshape(b, channels, t * PATCH, h * PATCH, w * PATCH)


def _xavier(module: nn.Module) -> None:
    """Initialise every linear map, patches too, with Xavier-uniform and no bias."""
    if isinstance(module, nn.Linear | nn.Conv3d):
        nn.init.xavier_uniform_(module.weight.view(len(module.weight), -1))
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def fresh_network(config: FMvTConfig, seed: int) -> FMvT:
    """Return a network whose first weights are a function of ``seed`` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("weights", seed))
        return FMvT(config)
