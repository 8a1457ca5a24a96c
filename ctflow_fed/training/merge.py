"""An adapter and the weights that it belongs to, added and taken apart again."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ctflow_fed.errors import SettingsError
from ctflow_fed.model import FMvT, Provenance

__all__ = ["Adapter", "AdapterSettings", "merged", "moved", "unmerged", "whole_change"]


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


@torch.no_grad()
def moved(
    network: FMvT,
    settings: AdapterSettings,
    changes: Mapping[str, Tensor],
    sign: float = 1.0,
) -> FMvT:
    """Return a copy of ``network`` with the changes of an adapter added to it."""
    copied = copy.deepcopy(network)
    for name, weight in copied.named_parameters():
        change = whole_change(settings, changes, name)
        if change is not None:
            weight.add_(change.to(weight), alpha=sign)
    return copied


def whole_change(
    settings: AdapterSettings, changes: Mapping[str, Tensor], name: str
) -> Tensor | None:
    """Return what is added to a weight, in its own shape; None where it stays."""
    layer = name.removesuffix(".weight")
    if f"{layer}.lora_B" not in changes:
        return changes[name].float() if name in changes else None
    up, down = changes[f"{layer}.lora_B"], changes[f"{layer}.lora_A"]
    return settings.alpha / settings.rank * (up.float() @ down.float())
