"""Where on the path to train, and where to stop while sampling."""

import torch

from ctflow_fed.shapes import Time, TimeGrid

__all__ = ["logit_normal_times", "shifted", "time_grid"]


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
