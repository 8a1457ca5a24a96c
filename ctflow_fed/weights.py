"""Named weights, whoever trained them."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["weights_digest"]


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of named weights, whichever files they came in."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        values = weights[name].detach().cpu()
        digest.update(f"{name} {values.dtype} {list(values.shape)} ".encode())
        digest.update(
            values.reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()
