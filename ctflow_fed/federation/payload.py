"""Weights as named arrays, and the check of every update that comes from outside."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ctflow_fed.errors import UpdateError
from ctflow_fed.files import digest_of
from ctflow_fed.weights import weights_digest

__all__ = [
    "Arrays",
    "Manifest",
    "arrays_digest",
    "arrays_of",
    "check_manifest",
    "check_update",
    "load_arrays",
    "manifest_digest",
    "manifest_of",
    "minus",
    "network_manifest",
    "norm_of",
    "plus",
]

Arrays = Mapping[str, NDArray[np.float32]]
"""Weights by name: all of a network, or those that a job trains."""

Manifest = Mapping[str, tuple[int, ...]]
"""The name and the shape of every array of a round."""

LARGEST_MOVE = 10.0
"""An update may be this many times as long as the weights it departs from: training
never comes near it, an update that was scaled or has diverged does."""


def arrays_of(network: nn.Module) -> dict[str, NDArray[np.float32]]:
    """Return copies of all weights of a network."""
    return {
        name: value.detach().cpu().float().numpy().copy()
        for name, value in network.state_dict().items()
    }


def arrays_digest(arrays: Arrays) -> str:
    """Return the SHA-256 of weights, the same as that of a network that holds them."""
    return weights_digest(
        {name: torch.from_numpy(value) for name, value in arrays.items()}
    )


def load_arrays(network: nn.Module, arrays: Arrays) -> None:
    """Put weights into a network of the same manifest."""
    check_manifest(network_manifest(network), manifest_of(arrays))
    network.load_state_dict(
        {name: torch.from_numpy(value.copy()) for name, value in arrays.items()}
    )


def manifest_of(arrays: Arrays) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of arrays, by name."""
    return {name: tuple(arrays[name].shape) for name in sorted(arrays)}


def network_manifest(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of all weights of a network, wherever they are."""
    weights = network.state_dict()
    return {name: tuple(weights[name].shape) for name in sorted(weights)}


def manifest_digest(manifest: Manifest) -> str:
    """Return the digest that the order of a round names."""
    return digest_of({name: list(shape) for name, shape in manifest.items()})


def plus(arrays: Arrays, change: Arrays) -> dict[str, NDArray[np.float32]]:
    """Return arrays with a change added, the same to the bit wherever it is done."""
    return {name: np.asarray(value + change[name]) for name, value in arrays.items()}


def minus(arrays: Arrays, others: Arrays) -> dict[str, NDArray[np.float32]]:
    """Return the change that leads from ``others`` to ``arrays``."""
    return {name: np.asarray(value - others[name]) for name, value in arrays.items()}


def check_manifest(expected: Manifest, got: Manifest) -> None:
    """Refuse arrays whose names or shapes are not those of the round."""
    if set(expected) != set(got):
        raise UpdateError(
            f"expected the {len(expected)} arrays of the round's network, got "
            f"{len(set(expected) & set(got))} of them and "
            f"{len(set(got) - set(expected))} others; was another network sent?"
        )
    different = [name for name in sorted(expected) if expected[name] != got[name]]
    if different:
        raise UpdateError(
            f"expected the shapes of the round's network, got others in "
            f"{len(different)} arrays; was another network sent?"
        )


def check_update(update: Arrays, start: Arrays, length: float) -> float:
    """Return how far an update has moved from ``start``, relative to ``length``.

    That is the Euclidean length of the weights of the whole network. Raises
    ``UpdateError`` where a number is not finite or the move is absurdly long.
    """
    if not all(np.isfinite(value).all() for value in update.values()):
        raise UpdateError(
            "the update holds numbers that are not finite; "
            "lower the learning rate or look at the site's data"
        )
    moved = norm_of(minus(update, start)) / max(length, 1e-12)
    if moved > LARGEST_MOVE:
        raise UpdateError(
            f"the update moved {moved:.3g} times the length of the weights, more than "
            f"{LARGEST_MOVE:g}; lower the learning rate or look at the site's data"
        )
    return moved


def norm_of(arrays: Arrays) -> float:
    """Return the Euclidean length of all arrays as one vector, in whatever order."""
    return math.sqrt(
        math.fsum(
            float(np.square(value, dtype=np.float64).sum()) for value in arrays.values()
        )
    )
