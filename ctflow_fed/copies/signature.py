"""The signature of a picture: the same for its mirror images, and nearly so if moved.

It is how strong each wave is in the picture, wherever its crests lie and whichever way
they run. Comparing signatures is cheap, so they choose whom a picture is compared with
cell by cell.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from ctflow_fed.copies.picture import SIDE, Pictures

__all__ = ["Signatures", "nearest_of", "signatures_of"]

WAVES = 8
"""Waves from 0 to 7 to the volume, along every axis."""

LEAST = 1e-6

Signatures = Float[Tensor, "pictures 512"]
"""One of each picture."""


def signatures_of(pictures: Pictures) -> Signatures:
    """Return the logarithms of the strengths of the slowest waves."""
    # Towards the faces a picture fades, or it would change as something moves out.
    fade = torch.hann_window(SIDE + 2, periodic=False)[1:-1].sqrt()
    faded = pictures * fade[:, None, None] * fade[:, None] * fade
    strength: Tensor = torch.fft.fftn(faded, dim=(1, 2, 3)).abs()
    for axis in (1, 2, 3):
        strength = strength.roll(WAVES - 1, axis).narrow(axis, 0, 2 * WAVES - 1)
        back, zero, forth = strength.split([WAVES - 1, 1, WAVES - 1], axis)
        strength = torch.cat([zero, (back.flip(axis) + forth) / 2], axis)
    return (strength + LEAST).log().flatten(1)


def nearest_of(
    signature: Float[Tensor, "512"], others: Signatures, count: int
) -> Tensor:
    """Return the places of the ``count`` nearest of ``others``, in units of theirs."""
    spread = others.std(0).clamp_min(LEAST) if len(others) > 1 else torch.ones(1)
    far = ((others - signature) / spread).square().sum(1)
    return far.topk(min(count, len(others)), largest=False).indices
