"""The part of a network that a job trains, and that travels: all of it, or an adapter.

The base of an adapter is the same everywhere and known by the digest of its weights.
"""

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctflow_fed.federation.array_files import paged
from ctflow_fed.federation.arrays import (
    Arrays,
    LazyArrays,
    Manifest,
    arrays_digest,
    manifest_of,
)
from ctflow_fed.federation.payload import (
    arrays_of,
    blank_network,
    manifest_digest,
    network_manifest,
    network_of,
    norm_of,
)
from ctflow_fed.files import digest_of
from ctflow_fed.model import FMvT, FMvTConfig
from ctflow_fed.training.adapters import (
    changes_of,
    down_matrices,
    up_matrices,
    with_up_matrices,
    zero_changes,
)
from ctflow_fed.training.merge import AdapterSettings, add_change, beside
from ctflow_fed.training.step import trained_weights
from ctflow_fed.weights import weights_digest

__all__ = ["AdapterPart", "Part", "WholePart", "part_of"]


class WholePart:
    """All weights of a network; ``first`` are those that training begins with."""

    def __init__(self, config: FMvTConfig, first: Arrays) -> None:
        self.config, self.first = config, first
        self.manifest: Manifest = network_manifest(blank_network(config))
        self.signature = manifest_digest(self.manifest)
        self.base: Arrays = {}
        self.base_digest = ""

    def length(self, arrays: Arrays) -> float:
        """Return the Euclidean length of the weights."""
        return norm_of(arrays)

    def merged(self, arrays: Arrays) -> Arrays:
        """Return all weights of the network that has these."""
        return arrays

    def network(self, arrays: Arrays) -> FMvT:
        """Return the network with these weights, to be looked at."""
        return network_of(self.config, paged(arrays))

    def trainable(self, arrays: Arrays) -> FMvT:
        """Return the network that trains these weights."""
        return network_of(self.config, arrays)

    def trained(self, network: FMvT) -> Arrays:
        """Return the weights of a network that `trainable` gave."""
        return arrays_of(network)


class AdapterPart:
    """The changes of a low-rank adapter, without its matrices A (FFA-LoRA).

    Those are drawn by ``seed`` and stay as they are, so that a mean over the sites is
    exact (`ctflow_fed.training.adapters`). Of a released network our extensions are
    trained in full, but not privately; what travels is the change of each.
    """

    def __init__(
        self,
        config: FMvTConfig,
        base: Arrays,
        settings: AdapterSettings,
        seed: int,
        *,
        private: bool,
    ) -> None:
        self.config, self.base, self.settings = config, base, settings
        self.base_digest = arrays_digest(base)
        blank = blank_network(config)
        trained = up_matrices if private else zero_changes
        self.first: Arrays = _as_arrays(trained(blank, settings.rank))
        self.manifest: Manifest = manifest_of(self.first)
        down = down_matrices(blank, settings.rank, seed)
        self._fixed = {**down, **zero_changes(blank, settings.rank)}
        self.signature = digest_of(
            [manifest_digest(self.manifest), weights_digest(down)]
        )

    def length(self, arrays: Arrays) -> float:
        """Return the Euclidean length of the weights that the adapter changes."""
        return self._base_length

    def changes(self, arrays: Arrays) -> dict[str, Tensor]:
        """Return all changes of the adapter, its matrices A included."""
        return {**self._fixed, **{n: torch.from_numpy(v) for n, v in arrays.items()}}

    def merged(self, arrays: Arrays) -> Arrays:
        """Return all weights of the network that the adapter is merged into."""
        changes = self.changes(arrays)

        def weight(name: str) -> NDArray[np.float32]:
            value = torch.tensor(self.base[name])
            add_change(value, self.settings, changes, name)
            return np.asarray(value.numpy())

        return LazyArrays(manifest_of(self.base), weight)

    def network(self, arrays: Arrays) -> FMvT:
        """Return a network that gives the numbers of the base with the adapter."""
        base = network_of(self.config, paged(self.base))
        return beside(base, self.settings, self.changes(arrays))

    def trainable(self, arrays: Arrays) -> FMvT:
        """Return the network that trains the adapter; it needs peft."""
        base = network_of(self.config, paged(self.base))
        return with_up_matrices(base, self.settings, self.changes(arrays), arrays)

    def trained(self, network: FMvT) -> Arrays:
        """Return the changes of a network that `trainable` gave."""
        weights = trained_weights(network)
        base = {n: torch.from_numpy(self.base[n]) for n in weights if n in self.base}
        return _as_arrays(changes_of(weights, base))

    @cached_property
    def _base_length(self) -> float:
        return norm_of(self.base)


Part = WholePart | AdapterPart


def part_of(
    config: FMvTConfig,
    weights: Arrays,
    adapter_rank: int,
    seed: int,
    *,
    private: bool = False,
) -> Part:
    """Return the part of a network that a job trains; rank 0 is all of it."""
    if not adapter_rank:
        return WholePart(config, weights)
    settings = AdapterSettings(rank=adapter_rank)
    return AdapterPart(config, weights, settings, seed, private=private)


def _as_arrays(tensors: Mapping[str, Tensor]) -> dict[str, NDArray[np.float32]]:
    return {name: value.cpu().numpy().copy() for name, value in tensors.items()}
