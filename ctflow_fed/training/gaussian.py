"""The Gaussian mechanism of DP-SGD: who takes part, how much, and the noise."""

from collections.abc import Sequence
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from ctflow_fed.training.randomness import Randomness, SystemRandomness
from ctflow_fed.training.settings import PrivacySettings

__all__ = ["clipped", "noisy", "poisson_sample"]

Member = TypeVar("Member")


def poisson_sample(
    members: Sequence[Member],
    rate: float,
    randomness: Randomness = SystemRandomness(),  # noqa: B008 - it has no state
) -> list[Member]:
    """Choose each member with the chance ``rate``, whoever else is chosen."""
    chances = randomness.random(len(members))
    return [one for one, chance in zip(members, chances, strict=True) if chance < rate]


def clipped(
    gradient: Float[Tensor, " weights"], clip: float
) -> Float[Tensor, " weights"]:
    """Return a gradient as float64 of an L2 norm of ``clip`` at most.

    One that is not finite becomes zero: a single patient must not spoil a step.
    """
    gradient = gradient.double()
    norm = torch.linalg.vector_norm(gradient)
    if not torch.isfinite(norm):
        return torch.zeros_like(gradient)
    shorter: Tensor = gradient * (clip / norm.clamp(min=clip))
    return shorter


def noisy(
    total: Float[Tensor, " weights"],
    settings: PrivacySettings,
    randomness: Randomness = SystemRandomness(),  # noqa: B008 - it has no state
) -> Float[Tensor, " weights"]:
    """Add the noise to a sum of clipped gradients.

    The sum is that of float64 numbers. Rounding it to float32 afterwards takes away
    what its lowest bits tell.
    """
    noise = torch.from_numpy(randomness.standard_normal(len(total))).to(total.device)
    deviation = settings.noise_multiplier * settings.clip
    noised: Tensor = total.double() + deviation * noise
    return noised
