"""Classifier-free guidance."""

from ctflow_fed.shapes import Clip

__all__ = ["guided_velocity"]


def guided_velocity(told: Clip, untold: Clip, scale: float) -> Clip:
    """Move from the velocity without a report towards, and beyond, the one with it.

    ``s untold + scale (told - s untold)``, where ``s = <told, untold> / |untold|^2`` is
    the best fit of the one to the other (CFG-Zero*, arXiv 2503.18886, Eq. 8). Its
    zero first steps are less than one step of ours and left out. ``scale`` 1 gives
    ``told``.
    """
    product = (told * untold).flatten(1).sum(1)
    length = untold.square().flatten(1).sum(1).clamp(min=1e-12)
    untold = untold * (product / length)[:, None, None, None, None]
    return untold + scale * (told - untold)
