"""Named weights, whoever trained them."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["WeightsDigest", "weights_digest"]


class WeightsDigest:
    """The SHA-256 of named weights that come one by one, in the order of names.

    It is that of their values as float32, so that weights which a package holds in half
    precision have the digest of the network that is made of them.
    """

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, name: str, weights: Tensor) -> None:
        """Take in the next weights."""
        values = weights.detach().cpu()
        values = values.float() if values.is_floating_point() else values
        self.begin(name, values.shape, values.dtype)
        self.update(values.reshape(-1).contiguous().view(torch.uint8).numpy())

    def begin(
        self, name: str, shape: Sequence[int], dtype: torch.dtype = torch.float32
    ) -> None:
        """Begin the next weights, whose values follow by `update`."""
        self._digest.update(f"{name} {dtype} {list(shape)} ".encode())

    def update(self, values: NDArray[Any]) -> None:
        """Take in values that lie one after the other, of the weights begun last."""
        self._digest.update(np.ascontiguousarray(values).data)

    def hexdigest(self) -> str:
        """Return the digest of all that came."""
        return self._digest.hexdigest()


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of named weights, whichever files they came in."""
    digest = WeightsDigest()
    for name in sorted(weights):
        digest.add(name, weights[name])
    return digest.hexdigest()
