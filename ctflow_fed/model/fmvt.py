"""FMvT, the flow-matching video transformer of CTFlow.

What is unusual about it:

* noisy clip and context clip are joined on channels before the patches are taken;
* attention is factored: within a frame, then along frames at one place;
* the report enters by cross-attention in every block;
* one modulation vector of the time is shared by all blocks, each adds its own table;
* any even number of frames is a clip; the cost grows linearly with them.

What we add, all of it zero until trained and absent where no `FrameConditions` come:

* each frame's place in the volume, whether it is known, the noise of the context;
* a guess from the nearest known slices, which leaves a simpler path (`SimplerPath`);
* the mean of the report's tokens, added to the time;
* a refiner that mends the edges of patches.

New models do not predict the velocity itself but what is left of it after the best
guess for data that are white noise (`preconditioned`), less a part of the noisy clip
that each patch chooses for each channel.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ctflow_fed.clips import QUANTITIES
from ctflow_fed.model.block import FMvTBlock, modulate, modulation_table
from ctflow_fed.model.conditions import Conditions
from ctflow_fed.model.embed import (
    PATCH,
    FrameEmbedder,
    PatchEmbedder,
    Refiner,
    ReportEmbedder,
    TimestepEmbedder,
    frame_positions,
    place_positions,
)
from ctflow_fed.model.neighbours import Neighbours, SimplerPath
from ctflow_fed.model.presets import FMvTConfig
from ctflow_fed.seeds import derive_seed
from ctflow_fed.shapes import Clip, ClipTime, Hidden, HiddenTokens, Time, TokenMask

__all__ = ["FMvT", "fresh_network", "is_extension"]

ZERO_BRANCHES = (
    "frame_embedder.geometry",
    "frame_embedder.known",
    "frame_embedder.near",
    "frame_embedder.level",
    "report_pool",
    "refiner.told",
    "refiner.leave",
    "final_layer.linear",
    "final_layer.gain",
)
"""Layers that give nothing until they are trained."""

EXTENSIONS = (
    "frame_embedder.",
    "neighbours.",
    "report_pool.",
    "refiner.",
    "final_layer.gain.",
    "y_embedder.null",
)
"""The names of weights that the released network lacks begin so."""


class FMvT(nn.Module):
    """The velocity of a noisy clip, given its context and its report.

    With ``checkpointing`` set, the gradient computes each block a second time, in place
    of keeping what is inside it.
    """

    def __init__(self, config: FMvTConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpointing = False
        d, released = config.features, config.released
        self.x_embedder = PatchEmbedder(2 * config.latent_channels, d)
        self.t_embedder = TimestepEmbedder(d, 1.0 if released else 1000.0)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(d, 6 * d))
        self.y_embedder = ReportEmbedder(config.report_features, d, released=released)
        self.report_pool = nn.Linear(d, d)
        self.frame_embedder = FrameEmbedder(QUANTITIES, d)
        self.neighbours = Neighbours(config.latent_channels)
        self.blocks = nn.ModuleList(
            FMvTBlock(d, config.heads, released=released) for _ in range(config.layers)
        )
        self.final_layer = FinalLayer(d, config.latent_channels)
        self.refiner = Refiner(config.latent_channels, d)
        if not self.final_layer.linear.weight.is_meta:  # no values, nothing to set
            self.apply(_xavier)
            self._start_from_zero()

    def _start_from_zero(self) -> None:
        """Initialise as CTFlow does: embedders small, last layers of branches zero."""
        small = [self.t_embedder, self.t_block]
        if self.config.released:
            small.append(self.y_embedder)
        for embedder in small:
            for module in embedder.modules():
                if isinstance(module, nn.Linear):
                    nn.init.normal_(module.weight, std=0.02)
        closed = [
            f"blocks.{index}.{part}.proj"
            for index in range(len(self.blocks))
            for part in ("attn_temp", "cross_attn")
        ]
        for branch in (*ZERO_BRANCHES, *closed):
            nn.init.zeros_(self.get_parameter(f"{branch}.weight"))

    def forward(self, noisy: Clip, timestep: Time, conditions: Conditions) -> Clip:
        """Return ``noise - data`` as the network sees it.

        ``noisy`` is ``[batch, channels, frames, height, width]`` with even frames,
        height and width; ``timestep`` is 1 at noise and 0 at data.
        """
        t, frames = timestep[:, None, None, None, None], conditions.frames
        if frames is None:
            return self._unguessed(noisy, t, timestep, conditions)
        guess = self.neighbours(conditions.context, frames)
        path = SimplerPath.of(noisy, t, guess.detach())
        return path.velocity(self._unguessed(path.z_t, path.t, timestep, conditions))

    def _unguessed(
        self, noisy: Clip, t: ClipTime, timestep: Time, conditions: Conditions
    ) -> Clip:
        """Return the velocity of what the known slices do not tell, at its times."""
        height, width = noisy.shape[-2] // PATCH, noisy.shape[-1] // PATCH
        d, frames = self.config.features, conditions.frames

        x = self.x_embedder(torch.cat([noisy, conditions.context], dim=1))
        x = x + place_positions(height, width, d).to(x)
        time = self.t_embedder(timestep)
        tokens, seen = self.y_embedder(conditions.report, conditions.report_mask)
        if frames is not None:
            placed = self.frame_embedder(frames)
            x = x + placed[:, :, None]
            time = time + self.report_pool(_mean_token(tokens, seen))

        modulation = self.t_block(time).unflatten(1, (6, d))
        positions = frame_positions(x.shape[1], d).to(x)
        for index, block in enumerate(self.blocks):
            place = None if index else positions
            x = self._through(block, x, modulation, tokens, seen, place)
        velocity = self._velocity(x, time, noisy, t)
        if frames is None:
            return velocity
        told = time[:, None] + placed
        return velocity + self.refiner(noisy, velocity, conditions.context, t, told)

    def _velocity(
        self,
        x: Hidden,
        time: Float[Tensor, "batch hidden"],
        noisy: Clip,
        t: ClipTime,
    ) -> Clip:
        """Turn what the blocks give into a velocity."""
        if self.config.released:
            return self.final_layer(x, time, noisy.shape[-2] // PATCH)
        residual = self.final_layer(x, time, noisy.shape[-2] // PATCH, noisy)
        return preconditioned(noisy, residual, t)

    def _through(self, block: nn.Module, x: Hidden, *given: Tensor | None) -> Hidden:
        """Pass ``x`` through a block."""
        if not (self.checkpointing and torch.is_grad_enabled()):
            return block(x, *given)
        # No dropout in a block: there is no state of a generator to be kept.
        return checkpoint(
            block, x, *given, use_reentrant=False, preserve_rng_state=False
        )


def preconditioned(x_t: Clip, residual: Clip, t: ClipTime) -> Clip:
    """Return the velocity that a network's ``residual`` stands for.

    ``((2 t - 1) / S) x_t - residual / sqrt(S)`` with ``S = (1 - t)^2 + t^2``, the
    variance of ``x_t``: EDM's preconditioning (arXiv 2206.00364, Sec. 5) on the
    straight path. The first term alone is right for data that are white noise. The
    residual is of variance one: it is the clean data at t = 1 and the noise at t = 0,
    where what it says of the data counts no more.
    """
    variance = (1 - t).square() + t.square()
    return (2 * t - 1) / variance * x_t - residual * variance.rsqrt()


def _mean_token(tokens: HiddenTokens, seen: TokenMask) -> Float[Tensor, "batch hidden"]:
    weights = seen[..., None].to(tokens)
    return (tokens * weights).sum(1) / weights.sum(1)


class FinalLayer(nn.Module):
    """From features back to latents."""

    def __init__(self, features: int, channels: int) -> None:
        super().__init__()
        self.scale_shift_table = modulation_table(2, features)
        self.linear = nn.Linear(features, PATCH**3 * channels)
        self.gain = nn.Linear(features, channels)

    def forward(
        self,
        x: Hidden,
        time: Float[Tensor, "batch hidden"],
        height: int,
        noisy: Clip | None = None,
    ) -> Clip:
        """Return whole latents, ``[batch, channels, frames, height, width]``.

        Where the noisy clip is given, each patch takes away as much of it as it
        chooses, channel by channel: a narrow network cannot carry all the noise that
        is to be taken away.
        """
        parts = (self.scale_shift_table + time[:, None])[:, :, None, None]
        shift, scale = parts.unbind(1)
        x = modulate(x, shift, scale)
        latents = _unpatched(self.linear(x), height)
        if noisy is None:
            return latents
        gain = _unpatched(self.gain(x).repeat(1, 1, 1, PATCH**3), height)
        return latents - gain * noisy


def _unpatched(patches: Hidden, height: int) -> Clip:
    """Lay out rows that hold their patch as (frame, row, column, channel)."""
    patches = patches.unflatten(2, (height, -1)).unflatten(4, (PATCH, PATCH, PATCH, -1))
    b, t, h, w, *_, channels = patches.shape
    latents = patches.permute(0, 7, 1, 4, 2, 5, 3, 6)
    return latents.reshape(b, channels, t * PATCH, h * PATCH, w * PATCH)


def is_extension(name: str) -> bool:
    """Tell whether the weights of a name are ours and not the released network's."""
    return name.startswith(EXTENSIONS)


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
