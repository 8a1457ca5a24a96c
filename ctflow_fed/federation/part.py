"""The part of a network that a job trains, and that travels: all of it, or an adapter.

The base of an adapter is the same everywhere and known by the digest of its weights.
"""

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctflow_fed.federation.payload import (
    Arrays,
    Manifest,
    arrays_digest,
    arrays_of,
    load_arrays,
    manifest_digest,
    manifest_of,
    network_manifest,
    norm_of,
)
from ctflow_fed.files import digest_of
from ctflow_fed.model import FMvT
from ctflow_fed.training.adapters import (
    changes_of,
    down_matrices,
    up_matrices,
    with_up_matrices,
    zero_changes,
)
from ctflow_fed.training.merge import AdapterSettings, moved
from ctflow_fed.training.step import trained_weights
from ctflow_fed.weights import weights_digest

__all__ = ["AdapterPart", "Part", "WholePart", "part_of"]


class WholePart:
    """All weights of a network, of which only ``first`` needs the values."""

    def __init__(self, network: FMvT) -> None:
        self.manifest: Manifest = network_manifest(network)
        self.signature = manifest_digest(self.manifest)
        self.base: Arrays = {}
        self.base_digest = ""
        self._network = network

    @property
    def first(self) -> Arrays:
        """The weights that training begins with."""
        return arrays_of(self._network)

    def length(self, arrays: Arrays) -> float:
        """Return the Euclidean length of the weights."""
        return norm_of(arrays)

    def network(self, arrays: Arrays) -> FMvT:
        """Return the network with these weights."""
        network = FMvT(self._network.config)
        load_arrays(network, arrays)
        return network

    def trainable(self, arrays: Arrays) -> FMvT:
        """Return the network that trains these weights."""
        return self.network(arrays)

    def trained(self, network: FMvT) -> dict[str, NDArray[np.float32]]:
        """Return the weights of a network that `trainable` gave."""
        return arrays_of(network)


class AdapterPart:
    """The changes of a low-rank adapter, without its matrices A (FFA-LoRA).

    Those are drawn by ``seed`` and stay as they are, so that a mean over the sites is
    exact (`ctflow_fed.training.adapters`). Of a released network our extensions are
    trained in full, but not privately; what travels is the change of each.
    """

    def __init__(
        self, base: FMvT, settings: AdapterSettings, seed: int, *, private: bool
    ) -> None:
        self.settings = settings
        self.base: Arrays = arrays_of(base)
        self.base_digest = arrays_digest(self.base)
        self._network = base
        trained = up_matrices if private else zero_changes
        self.first: Arrays = _as_arrays(trained(base, settings.rank))
        self.manifest: Manifest = manifest_of(self.first)
        down = down_matrices(base, settings.rank, seed)
        self._fixed = {**down, **zero_changes(base, settings.rank)}
        self.signature = digest_of(
            [manifest_digest(self.manifest), weights_digest(down)]
        )

    def length(self, arrays: Arrays) -> float:
        """Return the Euclidean length of the weights that the adapter changes."""
        return self._base_length

    def changes(self, arrays: Arrays) -> dict[str, Tensor]:
        """Return all changes of the adapter, its matrices A included."""
        return {**self._fixed, **{n: torch.from_numpy(v) for n, v in arrays.items()}}

    def network(self, arrays: Arrays) -> FMvT:
        """Return a plain network, the base with the adapter merged."""
        return moved(self._network, self.settings, self.changes(arrays))

    def trainable(self, arrays: Arrays) -> FMvT:
        """Return the network that trains the adapter; it needs peft."""
        changes = self.changes(arrays)
        return with_up_matrices(self._network, self.settings, changes, arrays)

    def trained(self, network: FMvT) -> dict[str, NDArray[np.float32]]:
        """Return the changes of a network that `trainable` gave."""
        return _as_arrays(changes_of(trained_weights(network), self._network))

    @cached_property
    def _base_length(self) -> float:
        return norm_of(self.base)


Part = WholePart | AdapterPart


def part_of(
    network: FMvT, adapter_rank: int, seed: int, *, private: bool = False
) -> Part:
    """Return the part of a network that a job trains; rank 0 is all of it."""
    if not adapter_rank:
        return WholePart(network)
    settings = AdapterSettings(rank=adapter_rank)
    return AdapterPart(network, settings, seed, private=private)


def _as_arrays(tensors: Mapping[str, Tensor]) -> dict[str, NDArray[np.float32]]:
    return {name: value.cpu().numpy().copy() for name, value in tensors.items()}
