"""What the nearest known slices say of a clip before the network does."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ctflow_fed.model.conditions import FrameConditions
from ctflow_fed.shapes import Clip, ClipTime

__all__ = ["NEAR", "Guess", "Neighbours", "SimplerPath", "nearness"]

REACHES_MM = (2.0, 6.0, 20.0)
"""How far known slices reach: neighbours of a thin scan, of a thick one, an organ."""

NEAR = 2 * len(REACHES_MM)
"""Numbers that `nearness` tells of a frame."""

FARTHEST_MM = 1000.0
"""Nothing that is known is worth anything from here on."""

LENGTH_MM = 20.0
"""The correlation length that every channel begins with."""

SMALLEST_SPREAD = 0.02

PACE = 4.0
"""By how much faster than others these few weights move: they know where to."""


class Guess(NamedTuple):
    """What a clip is expected to be, and how far off, with latents of variance one."""

    mean: Clip
    spread: ClipTime

    def detach(self) -> "Guess":
        """Return the guess as the network takes it, for granted."""
        return Guess(self.mean.detach(), self.spread.detach())


class SimplerPath(NamedTuple):
    """The straight path of what is left of a clip when a guess is taken away.

    Data that are ``mean + spread z`` lie at time ``t`` on the path from noise to them
    where ``z`` lies at time ``t / scale``, with ``scale = t + (1 - t) spread``: the
    noisy clip is ``(1 - t) mean + scale z_t``. ``z`` is of variance one, whatever is
    known, as the network and its preconditioning want it (compare arXiv 2206.00364,
    Sec. 5); near a known slice the flow of a frame thus begins almost at its end.
    """

    z_t: Clip
    t: ClipTime
    guess: Guess

    @classmethod
    def of(cls, noisy: Clip, t: ClipTime, guess: Guess) -> "SimplerPath":
        """Return the path on which a noisy clip lies, given its guess."""
        scale = t + (1 - t) * guess.spread
        return cls((noisy - (1 - t) * guess.mean) / scale, t / scale, guess)

    def velocity(self, of_z: Clip) -> Clip:
        """Return the velocity of the clip, given that of ``z``."""
        z, noise = self.z_t - self.t * of_z, self.z_t + (1 - self.t) * of_z
        return noise - self.guess.mean - self.guess.spread * z


class Neighbours(nn.Module):
    """Guess frames from known ones; where none is near, and until trained, nothing.

    Along the body a channel is taken as a Gaussian process of variance one whose
    correlation falls by ``exp(-distance / length)``. With the correlations ``p`` and
    ``q`` to the nearest known frames below and above, what lies between them is right
    by ``(p + q) / (1 + p q)``, and a variance of ``(1 - p^2)(1 - q^2) / (1 - p^2 q^2)``
    is left (simple kriging, exact halfway between and beyond the known ones). Length
    and share are the channel's own, one for the mean and one for the spread; the share
    is what of a channel is not noise.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.zeros(2, channels))
        self.length = nn.Parameter(torch.zeros(2, channels))

    def forward(self, context: Clip, frames: FrameConditions) -> Guess:
        """Return the guess of a clip."""
        of_mean, of_spread = torch.tanh(PACE * self.share.float())
        near = self._correlations(frames)
        p, q = near[:, :, 0].unbind(-1)
        trust = of_mean * (p + q) / (1 + p * q)
        p, q = near[:, :, 1].square().unbind(-1)
        left = (1 - p) * (1 - q) / (1 - p * q).clamp(min=1e-6)
        spread = 1 - of_spread * (1 - left.clamp(min=1e-8).sqrt())

        # A noisy context is trusted less, and leaves more.
        noise = frames.noise_level[:, None, None]
        variance = noise.square() + (1 - noise).square()
        spread = (spread.square() + (trust * noise).square() / variance).sqrt()
        mean = _at_clip(trust * (1 - noise) / variance) * context
        return Guess(mean, _at_clip(spread.clamp(min=SMALLEST_SPREAD)))

    def _correlations(
        self, frames: FrameConditions
    ) -> Float[Tensor, "batch frames 2 channels 2"]:
        """Return the correlations with the known frames below and above."""
        length = LENGTH_MM * torch.exp(PACE * self.length.float())
        mm = frames.nearest.clamp(max=FARTHEST_MM)
        return torch.exp(-mm[:, :, None, None, :] / length[..., None])


def _at_clip(values: Float[Tensor, "batch frames channels"]) -> ClipTime:
    return values.movedim(2, 1)[..., None, None]


def nearness(frames: FrameConditions) -> Float[Tensor, "batch frames near"]:
    """Tell how near known frames are below and above, from zero to one at the frame."""
    reaches = torch.tensor(REACHES_MM, device=frames.nearest.device)
    return torch.exp(-frames.nearest[..., None] / reaches).flatten(2)
