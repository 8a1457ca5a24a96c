"""Weights as named arrays, and the check of every update that comes from outside."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ctflow_fed.errors import UpdateError
from ctflow_fed.federation.array_files import ArrayFile, FilePages
from ctflow_fed.federation.arrays import (
    Arrays,
    Manifest,
    PiecedArrays,
    Run,
    manifest_of,
    runs_of,
    spans_of,
    values_of,
)
from ctflow_fed.files import digest_of
from ctflow_fed.model import FMvT, FMvTConfig
from ctflow_fed.threads import ahead

__all__ = [
    "arrays_of",
    "blank_network",
    "check_change",
    "check_finite",
    "check_manifest",
    "manifest_digest",
    "minus",
    "moved_by",
    "moved_from",
    "network_manifest",
    "network_of",
    "norm_of",
    "plus",
]

LARGEST_MOVE = 10.0
"""An update may be this many times as long as the weights it departs from: training
never comes near it, an update that was scaled or has diverged does."""


def arrays_of(network: nn.Module) -> Arrays:
    """Return all weights of a network, as they are when they are asked for."""
    weights = network.state_dict()

    def values(run: Run) -> NDArray[np.float32]:
        found = weights[run.name].detach().reshape(-1)[run.span]
        array: NDArray[np.float32] = found.cpu().float().numpy()
        return array

    return PiecedArrays(network_manifest(network), values)


def blank_network(config: FMvTConfig) -> FMvT:
    """Return a network without values: its names and shapes are all that it has."""
    with torch.device("meta"):
        return FMvT(config)


def network_of(config: FMvTConfig, arrays: Arrays) -> FMvT:
    """Return the network of a configuration that has these weights for its own.

    They are copies, unless they are pages of a file, which are its own without one.
    """
    network = blank_network(config)
    check_manifest(network_manifest(network), manifest_of(arrays))
    # What is read from a file is a copy.
    is_own = isinstance(arrays, ArrayFile | FilePages)
    own = torch.from_numpy if is_own else torch.tensor
    weights = {name: own(arrays[name]) for name in arrays}
    network.load_state_dict(weights, assign=True)
    return network


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


def moved_by(arrays: Arrays, change: Arrays) -> Arrays:
    """Return the same as `plus`, each run when it is asked for."""

    def values(run: Run) -> NDArray[np.float32]:
        return np.asarray(values_of(arrays, run) + values_of(change, run))

    return PiecedArrays(manifest_of(arrays), values)


def minus(arrays: Arrays, others: Arrays) -> dict[str, NDArray[np.float32]]:
    """Return the change that leads from ``others`` to ``arrays``."""
    return {name: np.asarray(value - others[name]) for name, value in arrays.items()}


def moved_from(arrays: Arrays, others: Arrays) -> Arrays:
    """Return the same as `minus`, each run when it is asked for."""

    def values(run: Run) -> NDArray[np.float32]:
        return np.asarray(values_of(arrays, run) - values_of(others, run))

    return PiecedArrays(manifest_of(others), values)


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


def check_finite(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return values that are all finite; others raise ``UpdateError``."""
    if not np.isfinite(values).all():
        raise UpdateError(
            "expected arrays of numbers, got some that are not finite; "
            "lower the learning rate or look at the site's data"
        )
    return values


def check_change(change: Arrays, length: float) -> float:
    """Return how long the change of an update is, relative to ``length``.

    That is the Euclidean length of the weights of the whole network. Raises
    ``UpdateError`` where a number is not finite or the change is absurdly long.
    """

    def finite(run: Run) -> NDArray[np.float32]:
        return check_finite(values_of(change, run))

    moved = norm_of(PiecedArrays(manifest_of(change), finite)) / max(length, 1e-12)
    if moved > LARGEST_MOVE:
        raise UpdateError(
            f"the update moved {moved:.3g} times the length of the weights, more than "
            f"{LARGEST_MOVE:g}; lower the learning rate or look at the site's data"
        )
    return moved


def norm_of(arrays: Arrays) -> float:
    """Return the Euclidean length of all arrays as one vector, in whatever order."""

    def squares(run: Run) -> float:
        values = values_of(arrays, run)
        return math.fsum(
            float(np.square(values[span], dtype=np.float64).sum())
            for span in spans_of(values.size)
        )

    return math.sqrt(math.fsum(ahead(squares, runs_of(manifest_of(arrays)))))
