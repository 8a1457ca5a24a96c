"""What enters the network: places, times, geometry, the report."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from ctflow_fed.model.conditions import FrameConditions
from ctflow_fed.model.neighbours import NEAR, nearness
from ctflow_fed.shapes import Clip, ClipTime, Hidden, Time, TokenMask, Tokens

__all__ = [
    "PATCH",
    "FrameEmbedder",
    "PatchEmbedder",
    "Refiner",
    "ReportEmbedder",
    "TimestepEmbedder",
    "frame_positions",
    "place_positions",
    "sincos",
]

PATCH = 2
"""Every patch covers 2 frames x 2 rows x 2 columns of latents."""

FREQUENCIES = 128
"""Frequencies that a time is seen at."""


def sincos(
    positions: Float[Tensor, " positions"], features: int
) -> Float[Tensor, "positions features"]:
    """Sine, then cosine of each position at frequencies ``10000^(-2i / features)``."""
    half = features // 2
    rates = 10000.0 ** -(torch.arange(half, dtype=torch.float64) / half)
    angles = positions.double()[:, None] * rates.to(positions.device)
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def frame_positions(frames: int, features: int) -> Float[Tensor, "frames features"]:
    """Positions along the volume, added before the first temporal attention."""
    return sincos(torch.arange(frames, dtype=torch.float32), features)


def place_positions(
    height: int, width: int, features: int
) -> Float[Tensor, "places features"]:
    """Positions within a frame: the first half of the features tells the column."""
    rows = sincos(torch.arange(height, dtype=torch.float32), features // 2)
    cols = sincos(torch.arange(width, dtype=torch.float32), features // 2)
    return torch.cat([cols.repeat(height, 1), rows.repeat_interleave(width, 0)], dim=1)


class PatchEmbedder(nn.Module):
    """Turn latents into one row of features a patch."""

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(channels, features, kernel_size=PATCH, stride=PATCH)

    def forward(self, clip: Clip) -> Hidden:
        """Return ``[batch, frames / 2, places, features]``, places row by row."""
        return self.proj(clip).flatten(3).permute(0, 2, 3, 1)


class TimestepEmbedder(nn.Module):
    """Embed the time on the path; the features are cosine, then sine."""

    def __init__(self, features: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.mlp = nn.Sequential(
            nn.Linear(2 * FREQUENCIES, features),
            nn.SiLU(),
            nn.Linear(features, features),
        )

    def forward(self, t: Time) -> Float[Tensor, "batch features"]:
        """Return the embedding of each time."""
        waves = _waves(self.scale * t.float())
        return self.mlp(waves.to(next(self.mlp.parameters()).dtype))


class ReportEmbedder(nn.Module):
    """Project report tokens to the width of the network.

    A null token is put before them; it is seen where there is no report. Of reports of
    one token it takes the place, so that one token is left (see `CrossAttention`).
    """

    def __init__(self, report_features: int, features: int, *, released: bool) -> None:
        super().__init__()
        self.released = released
        self.y_proj = nn.ModuleDict(
            {
                "fc1": nn.Linear(report_features, features),
                "fc2": nn.Linear(features, features),
            }
        )
        self.null = nn.Parameter(torch.zeros(features))

    def forward(
        self, report: Tokens, mask: TokenMask
    ) -> tuple[Float[Tensor, "batch keys hidden"], Bool[Tensor, "batch keys"]]:
        """Return the tokens, ``[batch, 1 or 1 + tokens, hidden]``, and what is seen."""
        if self.released:
            report = F.normalize(report, dim=-1, eps=1e-6)
        else:
            report = F.layer_norm(report, report.shape[-1:], eps=1e-6)
        hidden = F.gelu(self.y_proj["fc1"](report), approximate="tanh")
        hidden = self.y_proj["fc2"](hidden)
        if not self.released:
            hidden = F.layer_norm(hidden, hidden.shape[-1:], eps=1e-6)
        null = self.null.expand(len(report), 1, -1)
        if mask.shape[1] == 1:
            hidden = torch.where(mask[:, :, None], hidden, null)
            return hidden, torch.ones_like(mask)
        seen = torch.cat([~mask.any(1, keepdim=True), mask], dim=1)
        return torch.cat([null, hidden], dim=1), seen


class FrameEmbedder(nn.Module):
    """Embed where each frame lies and whether it is known; zero until trained."""

    OCTAVES = 6

    def __init__(self, quantities: int, features: int) -> None:
        super().__init__()
        self.geometry = nn.Linear(quantities * (2 * self.OCTAVES + 1), features)
        self.known = nn.Linear(PATCH, features)
        self.near = nn.Linear(PATCH * NEAR, features)
        self.level = nn.Linear(2 * FREQUENCIES, features)

    def forward(self, frames: FrameConditions) -> Float[Tensor, "batch pairs hidden"]:
        """Return ``[batch, frames / 2, features]``, to be added to the patches."""
        octaves = 2.0 ** torch.arange(self.OCTAVES, device=frames.geometry.device)
        angles = (frames.geometry[..., None] * octaves * (torch.pi / 2)).flatten(2)
        waves = torch.cat([frames.geometry, angles.sin(), angles.cos()], dim=-1)
        paired = waves.unflatten(1, (-1, PATCH)).mean(2)
        known = frames.known.unflatten(1, (-1, PATCH))
        near = nearness(frames).unflatten(1, (-1, PATCH)).flatten(2)
        level = _waves(1000 * frames.noise_level.float())
        dtype = self.known.weight.dtype
        placed = self.geometry(paired.to(dtype)) + self.known(known.to(dtype))
        return placed + self.near(near.to(dtype)) + self.level(level.to(dtype))[:, None]


class Refiner(nn.Module):
    """Mend a velocity across the edges of its patches; zero until trained.

    Every patch is predicted by itself, and neighbours do not quite meet: edges show
    in a slice and between pairs of slices. Three convolutions at the resolution of the
    latents see both sides of an edge. They tell noise from detail, and copy detail from
    known slices, better than a patch, whose features have little room for either.
    """

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        self.hidden = 4 * channels
        self.enter = nn.Conv3d(3 * channels, self.hidden, 3, padding=1)
        self.told = nn.Linear(features, PATCH * 2 * self.hidden)
        self.middle = nn.Conv3d(self.hidden, self.hidden, 3, padding=1)
        self.leave = nn.Conv3d(self.hidden, channels, 3, padding=1)

    def forward(
        self,
        noisy: Clip,
        velocity: Clip,
        context: Clip,
        t: ClipTime,
        told: Float[Tensor, "batch pairs features"],
    ) -> Clip:
        """Return what to add to a velocity.

        ``told`` embeds the time, the report and what is known of each pair of frames.
        """
        data, noise = noisy - t * velocity, noisy + (1 - t) * velocity
        frames = self.told(told).unflatten(2, (PATCH, -1)).flatten(1, 2).movedim(2, 1)
        scale, shift = frames[..., None, None].chunk(2, dim=1)
        hidden = self.enter(torch.cat([data, noise, context], dim=1))
        hidden = F.silu(torch.addcmul(shift, hidden, 1 + scale))
        return self.leave(F.silu(self.middle(hidden)))


def _waves(
    angles: Float[Tensor, " batch"],
) -> Float[Tensor, "batch features"]:
    """Cosine, then sine of each number at 128 frequencies from 1 down to 1e-4."""
    index = torch.arange(FREQUENCIES, device=angles.device)
    scaled = angles[:, None] * 10000.0 ** -(index / FREQUENCIES)
    return torch.cat([scaled.cos(), scaled.sin()], dim=1)
