"""The flow-matching loss."""

from ctflow_fed.shapes import Clip, Time

__all__ = ["flow_matching_loss"]


def flow_matching_loss(velocity: Clip, u_t: Clip) -> Time:
    """Return ``|velocity - u_t|^2`` of each clip, the mean over its elements."""
    return (velocity.float() - u_t.float()).square().flatten(1).mean(1)
