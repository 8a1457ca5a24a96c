"""What enters the network: places, times, geometry, the report."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ctflow_fed.shapes import Clip, Geometry, Hidden, HiddenTokens, Time, Tokens

__all__ = [
    "PATCH",
    "GeometryEmbedder",
    "PatchEmbedder",
    "ReportEmbedder",
    "TimestepEmbedder",
    "frame_positions",
    "place_positions",
    "sincos",
]

PATCH = 2
"""Every patch covers 2 frames x 2 rows x 2 columns of latents."""


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

    FREQUENCIES = 128

    def __init__(self, features: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.mlp = nn.Sequential(
            nn.Linear(2 * self.FREQUENCIES, features),
            nn.SiLU(),
            nn.Linear(features, features),
        )

    def forward(self, t: Time) -> Float[Tensor, "batch features"]:
        """Return the embedding of each time."""
        index = torch.arange(self.FREQUENCIES, device=t.device)
        rates = 10000.0 ** -(index / self.FREQUENCIES)
        angles = self.scale * t.float()[:, None] * rates
        waves = torch.cat([angles.cos(), angles.sin()], dim=1)
        return self.mlp(waves.to(t.dtype))


class ReportEmbedder(nn.Module):
    """Project report tokens to the width of the network."""

    def __init__(self, report_features: int, features: int, *, unit: bool) -> None:
        super().__init__()
        self.unit = unit
        self.y_proj = nn.ModuleDict(
            {
                "fc1": nn.Linear(report_features, features),
                "fc2": nn.Linear(features, features),
            }
        )

    def forward(self, report: Tokens) -> HiddenTokens:
        """Return ``[batch, tokens, width of the network]``."""
        if self.unit:
            report = F.normalize(report, dim=-1, eps=1e-6)
        hidden = F.gelu(self.y_proj["fc1"](report), approximate="tanh")
        return self.y_proj["fc2"](hidden)


class GeometryEmbedder(nn.Module):
    """Embed where each frame lies in its volume; our extension, zero until trained."""

    OCTAVES = 6

    def __init__(self, quantities: int, features: int) -> None:
        super().__init__()
        self.proj = nn.Linear(quantities * (2 * self.OCTAVES + 1), features)

    def forward(self, geometry: Geometry) -> Float[Tensor, "batch pairs 1 hidden"]:
        """Return ``[batch, frames / 2, 1, features]``; the mean of two frames."""
        octaves = 2.0 ** torch.arange(self.OCTAVES, device=geometry.device)
        angles = (geometry[..., None] * octaves * (torch.pi / 2)).flatten(2)
        waves = torch.cat([geometry, angles.sin(), angles.cos()], dim=-1)
        paired = waves.unflatten(1, (-1, PATCH)).mean(2)
        return self.proj(paired.to(self.proj.weight.dtype))[:, :, None]
