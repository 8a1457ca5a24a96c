"""Where on the path to train, and where to stop while sampling."""

import math

import torch

from ctflow_fed.shapes import Time, TimeGrid

__all__ = ["logit_normal_times", "shift_for", "shifted", "time_grid"]

SHIFT_LATENTS = 16 * 16 * 16
"""The latents of a clip for which shifts are given: 16 slices of 16 x 16."""


def logit_normal_times(count: int, generator: torch.Generator) -> Time:
    """Draw ``sigmoid(n)``, n standard normal: most often the middle of the path.

    The ends of the path are easy, its middle is where samples are decided (SD3,
    arXiv 2403.03206, Sec. 3.1).
    """
    return torch.randn(count, generator=generator).sigmoid()


def time_grid(steps: int) -> TimeGrid:
    """Return ``steps + 1`` equally spaced times from 1 (noise) to 0 (data)."""
    return torch.linspace(1.0, 0.0, steps + 1)


def shifted(t: Time, shift: float) -> Time:
    """Move times towards noise: ``shift t / (1 + (shift - 1) t)``; 0 and 1 stay.

    Neighbouring latents resemble one another, so the shape of a chest still shows
    through noise that hides every single latent. Where it is decided, near t = 1, is
    where training and sampling have to spend their steps (SD3, Sec. 5.3.2).
    """
    return shift * t / (1 + (shift - 1) * t)


def shift_for(shift: float, latents: int) -> float:
    """Return the shift of clips of ``latents`` positions, given that of 16 x 16 x 16.

    The more positions there are, the more of them tell the same through the noise, so
    that the shift grows with the root of their number (SD3, Eq. 23); it is at least 1.
    """
    return max(1.0, shift * math.sqrt(latents / SHIFT_LATENTS))
