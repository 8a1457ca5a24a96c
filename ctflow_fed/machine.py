"""What the machine that we run on has."""

import os

__all__ = ["cores"]


def cores() -> int:
    """Return how many CPU cores this process may use; macOS tells only of all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
