"""Where on the path to train, and where to stop while sampling."""

import torch

from ctflow_fed.shapes import Time, TimeGrid

__all__ = ["logit_normal_times", "time_grid"]


def logit_normal_times(count: int, generator: torch.Generator) -> Time:
    """Draw ``sigmoid(n)``, n standard normal: most often the middle of the path.

    The ends of the path are easy, its middle is where samples are decided (SD3,
    arXiv 2403.03206, Sec. 3.1).
    """
    return torch.randn(count, generator=generator).sigmoid()


def time_grid(steps: int) -> TimeGrid:
    """Return ``steps + 1`` equally spaced times from 1 (noise) to 0 (data)."""
    return torch.linspace(1.0, 0.0, steps + 1)
