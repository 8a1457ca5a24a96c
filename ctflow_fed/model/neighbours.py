"""What the nearest known slices say of a clip before the network does."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ctflow_fed.model.conditions import FrameConditions
from ctflow_fed.shapes import Clip, ClipTime

__all__ = ["NEAR", "Neighbours", "SimplerPath", "nearness"]

REACHES_MM = (2.0, 6.0, 20.0)
"""How far known slices reach: neighbours of a thin scan, of a thick one, an organ."""

NEAR = 4 * len(REACHES_MM)
"""Numbers that `nearness` tells of a frame."""


class SimplerPath(NamedTuple):
    """The straight path of what is left of a clip when its best guess is taken away.

    Data that are ``mean + spread z`` lie at time ``t`` on the path from noise to them
    where ``z`` lies at time ``t / scale``, with ``scale = t + (1 - t) spread``: the
    noisy clip is ``(1 - t) mean + scale z_t``. ``z`` is of variance one, whatever is
    known, as the network and its preconditioning want it (compare arXiv 2206.00364,
    Sec. 5); near a known slice the flow of a frame thus begins almost at its end.
    """

    z_t: Clip
    t: ClipTime
    mean: Clip
    spread: ClipTime

    def velocity(self, of_z: Clip) -> Clip:
        """Return the velocity of the clip, given that of ``z``."""
        z, noise = self.z_t - self.t * of_z, self.z_t + (1 - self.t) * of_z
        return noise - self.mean - self.spread * z


class Neighbours(nn.Module):
    """Guess frames from known ones; where none is near, and until trained, nothing.

    How far the context is right, and how far off a frame is then, is told channel by
    channel from the distances alone: fine detail is gone after a few millimetres, the
    shape of a chest is not.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.guess = nn.Linear(NEAR, 2 * channels, bias=False)

    def forward(
        self, noisy: Clip, t: ClipTime, context: Clip, frames: FrameConditions
    ) -> SimplerPath:
        """Return the path of what the context does not tell of a clip."""
        near = nearness(frames).to(self.guess.weight.dtype)
        told = self.guess(near).float().movedim(2, 1)[..., None, None]
        trust, log_spread = told.chunk(2, dim=1)
        mean, spread = trust * context, log_spread.clamp(-4, 1).exp()
        scale = t + (1 - t) * spread
        return SimplerPath((noisy - (1 - t) * mean) / scale, t / scale, mean, spread)


def nearness(frames: FrameConditions) -> Float[Tensor, "batch frames near"]:
    """Tell how near known frames are, below and above, and how noisy their context is.

    Each number is one at a known frame and falls to zero with the distance.
    """
    reaches = torch.tensor(REACHES_MM, device=frames.nearest.device)
    near = torch.exp(-frames.nearest[..., None] / reaches).flatten(2)
    return torch.cat([near, near * frames.noise_level[:, None, None]], dim=-1)
