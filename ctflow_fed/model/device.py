"""Where the network runs."""

import torch

from ctflow_fed.machine import has_native_bfloat16

__all__ = ["default_device", "has_native_bfloat16"]


def default_device() -> torch.device:
    """Return the first CUDA device if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
