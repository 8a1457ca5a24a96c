"""The straight path between data and noise."""

from typing import NamedTuple

from ctflow_fed.shapes import Clip, Time

__all__ = ["PathSample", "straight_path"]


class PathSample(NamedTuple):
    """A point on the path, ``x_t``, and the velocity there, ``u_t = dx_t / dt``."""

    x_t: Clip
    u_t: Clip


def straight_path(data: Clip, noise: Clip, t: Time) -> PathSample:
    """Return the point at time ``t``, where 0 is data and 1 is noise.

    ``x_t = (1 - t) data + t noise``, so ``u_t = noise - data`` (CTFlow, Eq. 1 and 2;
    the direction of time is that of the released weights).
    """
    t = t[:, None, None, None, None]
    return PathSample(x_t=(1 - t) * data + t * noise, u_t=noise - data)
