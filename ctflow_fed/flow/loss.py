"""The flow-matching loss."""

from jaxtyping import Float
from torch import Tensor

from ctflow_fed.shapes import Clip, Time

__all__ = ["flow_matching_loss"]


def flow_matching_loss(
    velocity: Clip, u_t: Clip, weights: Float[Tensor, "..."]
) -> Time:
    """Return ``|velocity - u_t|^2`` of each clip, the weighted mean over its elements.

    ``weights`` has five axes, each of length one or that of the clips.
    """
    squares = (velocity.float() - u_t.float()).square()
    weights = weights.expand_as(squares)
    return (squares * weights).flatten(1).sum(1) / weights.flatten(1).sum(1)
