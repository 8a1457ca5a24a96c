"""Solvers of ``dx / dt = velocity(x, t)``, from noise at t = 1 to data at t = 0."""

from collections.abc import Callable, Mapping
from itertools import pairwise

from torch import Tensor

from ctflow_fed.shapes import Clip, TimeGrid

__all__ = ["SOLVERS", "Velocity", "ab2", "euler", "heun"]

Velocity = Callable[[Tensor, Tensor], Tensor]
"""``velocity(x [batch, ...], t [batch]) -> [batch, ...]``."""


def euler(velocity: Velocity, x: Clip, times: TimeGrid) -> Clip:
    """Follow the velocity in straight steps; one evaluation a step."""
    for t, t_next in pairwise(times):
        x = x + (t_next - t) * velocity(x, t.expand(len(x)))
    return x


def heun(velocity: Velocity, x: Clip, times: TimeGrid) -> Clip:
    """Average the velocities at both ends of a step: second order, two evaluations.

    The step that arrives at data is one of Euler: there is no noise left to tell the
    velocity from (EDM, arXiv 2206.00364, Alg. 1).
    """
    for t, t_next in pairwise(times):
        here = velocity(x, t.expand(len(x)))
        ahead = x + (t_next - t) * here
        if t_next > 0:
            there = velocity(ahead, t_next.expand(len(x)))
            ahead = x + (t_next - t) * (here + there) / 2
        x = ahead
    return x


def ab2(velocity: Velocity, x: Clip, times: TimeGrid) -> Clip:
    """Extrapolate from the last two velocities: second order, one evaluation a step.

    Adams-Bashforth for steps of any length: ``x + h ((1 + r) v - r v_before)``, where r
    is half of this step over the one before. The first step is one of Euler.
    """
    before, length = None, 1.0
    for t, t_next in pairwise(times):
        here, step = velocity(x, t.expand(len(x))), t_next - t
        ratio = step / (2 * length)
        slope = here if before is None else here + ratio * (here - before)
        x = x + step * slope
        before, length = here, step
    return x


SOLVERS: Mapping[str, Callable[[Velocity, Tensor, Tensor], Tensor]] = {
    "ab2": ab2,
    "euler": euler,
    "heun": heun,
}
"""Every solver under the name that settings use."""
