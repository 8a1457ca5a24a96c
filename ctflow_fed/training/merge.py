"""An adapter and the weights that it belongs to, added and taken apart again."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ctflow_fed.errors import SettingsError
from ctflow_fed.model import FMvT, Provenance

__all__ = [
    "Adapter",
    "AdapterSettings",
    "add_change",
    "beside",
    "merged",
    "moved",
    "unmerged",
]


@dataclass(frozen=True, kw_only=True)
class AdapterSettings:
    """The size of an adapter: each layer gets ``alpha / rank * B @ A`` of that rank."""

    rank: int = 16
    alpha: int = 16

    def __post_init__(self) -> None:
        for name, value in {"rank": self.rank, "alpha": self.alpha}.items():
            if not 1 <= value <= 1024:
                raise SettingsError(f"{name} of an adapter must lie between 1 and 1024")


@dataclass(frozen=True)
class Adapter:
    """What an adapter changes, and whose weights.

    ``changes`` holds ``LAYER.lora_A`` and ``LAYER.lora_B`` of each layer that is
    adapted, and what is added to weights that are trained in full. ``base`` is the
    digest of the weights that they are changes of.
    """

    settings: AdapterSettings
    base: str
    changes: Mapping[str, Tensor]
    provenance: Provenance


def merged(network: FMvT, adapter: Adapter) -> FMvT:
    """Return a plain network that gives the numbers of ``network`` with the adapter."""
    return moved(network, adapter.settings, adapter.changes)


def unmerged(network: FMvT, adapter: Adapter) -> FMvT:
    """Return the network that the adapter was merged into, but for rounding."""
    return moved(network, adapter.settings, adapter.changes, sign=-1.0)


def moved(
    network: FMvT,
    settings: AdapterSettings,
    changes: Mapping[str, Tensor],
    sign: float = 1.0,
) -> FMvT:
    """Return a copy of ``network`` with the changes of an adapter added to it."""
    copied = copy.deepcopy(network)
    for name, weight in copied.named_parameters():
        add_change(weight, settings, changes, name, sign)
    return copied


@torch.no_grad()
def add_change(
    weight: Tensor,
    settings: AdapterSettings,
    changes: Mapping[str, Tensor],
    name: str,
    sign: float = 1.0,
) -> None:
    """Add to the weight of a name, where it lies, what an adapter changes of it."""
    layer = name.removesuffix(".weight")
    if f"{layer}.lora_B" in changes:
        up, down = changes[f"{layer}.lora_B"], changes[f"{layer}.lora_A"]
        scale = sign * settings.alpha / settings.rank
        weight.addmm_(up.to(weight), down.to(weight), alpha=scale)
    elif name in changes:
        weight.add_(changes[name].to(weight), alpha=sign)


@torch.no_grad()
def beside(
    network: FMvT, settings: AdapterSettings, changes: Mapping[str, Tensor]
) -> FMvT:
    """Return ``network`` itself, giving the numbers that it would with an adapter.

    The low-rank updates are computed beside the layers: no weight is copied or changed,
    but for those that are trained in full.
    """
    for name, weight in network.named_parameters():
        if name in changes:
            weight.add_(changes[name].to(weight))
    for name in changes:
        if name.endswith(".lora_B"):
            layer = name.removesuffix(".lora_B")
            up = settings.alpha / settings.rank * changes[name].float()
            down = changes[f"{layer}.lora_A"].float()
            below = network.get_submodule(layer)
            network.set_submodule(layer, _LowRank(below, up, down))
    return network


class _LowRank(nn.Module):
    """A layer, and ``up @ down`` of what it is given."""

    up: Tensor
    down: Tensor

    def __init__(self, layer: nn.Module, up: Tensor, down: Tensor) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("up", up)
        self.register_buffer("down", down)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.layer(x)
        return made + F.linear(F.linear(x, self.down), self.up)
