"""Adapters: a few megabytes in place of all weights (LoRA, arXiv 2106.09685).

Attention, feed-forward layers and the modulation each get a low-rank update; all else
is frozen. Of a released network our extensions are trained in full, because they start
from zero. An adapter is a folder:

    config.json            format, rank, alpha, digest of the base weights
    adapter.safetensors    float16, the tensors of `Adapter.changes`
    provenance.json        as in a model package; its parent is the base

peft is needed to train an adapter, not to use one.

At several sites, and privately, an adapter is trained as in FFA-LoRA (2403.12313): the
matrices A are a function of the seed, the same everywhere, and stay as they are. The
change of a layer is then linear in B, so that a mean of B is the mean of the changes,
exactly, and noise is not squared.
"""

import copy
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ctflow_fed.errors import (
    MismatchError,
    MissingExtraError,
    PackageError,
    SettingsError,
)
from ctflow_fed.files import read_json, write_atomically, write_json
from ctflow_fed.model import FMvT, ModelPackage
from ctflow_fed.model.fmvt import is_extension
from ctflow_fed.model.package import read_provenance
from ctflow_fed.seeds import derive_seed
from ctflow_fed.training.merge import Adapter, AdapterSettings, merged
from ctflow_fed.weights import weights_digest

__all__ = [
    "adapter_weights",
    "changes_of",
    "down_matrices",
    "load_adapter",
    "read_adapter",
    "save_adapter",
    "up_matrices",
    "with_adapter",
    "with_up_matrices",
    "zero_changes",
]

FORMAT = "ctflow-fed adapter 1"

LAYERS = re.compile(
    r"t_block\.1"
    r"|blocks\.\d+\.(attn|attn_temp)\.(qkv|proj)"
    r"|blocks\.\d+\.cross_attn\.(q_linear|kv_linear|proj)"
    r"|blocks\.\d+\.mlp\.(fc1|fc2)"
)
"""The linear layers that are adapted."""

PEFT_SUFFIX = ".default.weight"
"""How peft ends the names of the tensors of a layer's update."""


def load_adapter(base: ModelPackage, folder: Path) -> ModelPackage:
    """Read an adapter and return its base with the adapter merged, a plain network.

    ``base`` stays as it is. Raises `MismatchError` when the adapter belongs to another
    model, `PackageError` when its folder is damaged.
    """
    adapter = read_adapter(folder)
    if adapter.base != base.digest:
        raise MismatchError(
            "the adapter belongs to another model than this one; use it with the model "
            "whose weights have the digest that its config.json names"
        )
    shapes = {name: tuple(value.shape) for name, value in adapter.changes.items()}
    if shapes != _expected_shapes(base.network, adapter.settings.rank):
        raise PackageError(
            "the tensors of an adapter must have the names and shapes that its rank "
            "and its model ask for; fetch the adapter again"
        )
    network = merged(base.network, adapter).eval()
    return ModelPackage(
        network, adapter.provenance, weights_digest(network.state_dict())
    )


def with_adapter(network: FMvT, settings: AdapterSettings, seed: int) -> FMvT:
    """Return a copy of ``network`` that trains an adapter and nothing else.

    Until it is trained the copy gives the same numbers; the weights that it does not
    train are those of ``network``, in the same memory. Its first weights are a function
    of ``seed`` alone. Raises `MissingExtraError` without peft.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise MissingExtraError("peft", "adapters") from None
    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, target_modules=LAYERS.pattern
    )
    adapted = _copied(network)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("adapter", seed))
        inject_adapter_in_model(config, adapted)
    for name, value in adapted.named_parameters():
        if _goes_on(network, name):
            value.requires_grad_()
    return adapted


def _copied(network: FMvT) -> FMvT:
    """Copy a network, but of its weights those alone that an adapter trains."""
    own = {
        id(value): nn.Parameter(
            value.detach().clone() if _goes_on(network, name) else value.detach()
        )
        for name, value in network.named_parameters()
    }
    return copy.deepcopy(network, own)


def _goes_on(network: FMvT, name: str) -> bool:
    """Tell whether a weight is trained in full beside an adapter."""
    return network.config.released and is_extension(name)


def down_matrices(network: FMvT, rank: int, seed: int) -> dict[str, Tensor]:
    """Return a matrix A of [rank, in] for each layer, as LAYER.lora_A.

    Uniform within 1 / sqrt(in), as peft begins; a function of ``seed`` and the layer.
    """
    matrices = {}
    for name, shape in _expected_shapes(network, rank).items():
        if name.endswith(".lora_A"):
            derived = derive_seed("lora_A", seed, name)
            generator = torch.Generator().manual_seed(derived)
            drawn = torch.rand(shape, generator=generator)
            matrices[name] = (2 * drawn - 1) / math.sqrt(shape[1])
    return matrices


def zero_changes(network: FMvT, rank: int) -> dict[str, Tensor]:
    """Return the changes of an adapter before it is trained, without its matrices A."""
    return {
        name: torch.zeros(shape)
        for name, shape in _expected_shapes(network, rank).items()
        if not name.endswith(".lora_A")
    }


def up_matrices(network: FMvT, rank: int) -> dict[str, Tensor]:
    """Return the matrices B of an adapter before it is trained, and nothing else.

    They are what is trained privately: noise grows with the number of weights.
    """
    changes = zero_changes(network, rank)
    return {name: each for name, each in changes.items() if name.endswith(".lora_B")}


@torch.no_grad()
def with_up_matrices(
    network: FMvT,
    settings: AdapterSettings,
    changes: Mapping[str, Tensor],
    trained: Collection[str],
) -> FMvT:
    """Return a copy of ``network`` with ``changes``, of which those ``trained`` go on.

    Raises `MissingExtraError` without peft.
    """
    adapted = with_adapter(network, settings, seed=0)
    for name, value in adapted.named_parameters():
        change = name.removesuffix(PEFT_SUFFIX)
        if name.endswith(PEFT_SUFFIX):
            value.copy_(changes[change])
        elif change in changes:
            value.add_(changes[change])
        value.requires_grad_(change in trained)
    return adapted


def adapter_weights(network: FMvT) -> dict[str, Tensor]:
    """Return all weights of the adapter in a copy, trained or frozen."""
    released = network.config.released
    return {
        name: value.detach()
        for name, value in network.named_parameters()
        if ".lora_" in name or (released and is_extension(name))
    }


def changes_of(
    weights: Mapping[str, Tensor], base: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the changes that the trained weights of a copy with an adapter stand for.

    ``weights`` go by the names that they have in the copy, ``base`` are those that it
    was made of.
    """
    return {
        name.removesuffix(PEFT_SUFFIX): (
            value if name.endswith(PEFT_SUFFIX) else value - base[name].to(value)
        ).detach()
        for name, value in weights.items()
    }


def save_adapter(folder: Path, adapter: Adapter) -> None:
    """Write the folder of an adapter; ``provenance.json`` comes last."""
    halves = {
        name: value.cpu().to(torch.float16).contiguous()
        for name, value in adapter.changes.items()
    }
    _check_finite(halves)
    provenance = {**asdict(adapter.provenance), "digest": weights_digest(halves)}
    (folder / "provenance.json").unlink(missing_ok=True)
    write_atomically(
        folder / "adapter.safetensors", lambda partial: save_file(halves, partial)
    )
    config = {"format": FORMAT, "base": adapter.base, **asdict(adapter.settings)}
    write_json(folder / "config.json", config)
    write_json(folder / "provenance.json", provenance)


def read_adapter(folder: Path) -> Adapter:
    """Read the folder of an adapter, whichever model it belongs to."""
    settings, base = _read_config(folder / "config.json")
    provenance, digest = read_provenance(folder / "provenance.json")
    try:
        changes = load_file(folder / "adapter.safetensors")
    except (OSError, SafetensorError) as error:
        raise PackageError(
            "adapter.safetensors is missing or damaged; fetch the adapter again"
        ) from error
    if weights_digest(changes) != digest:
        raise PackageError(
            "the tensors of an adapter must have the digest that its provenance.json "
            "names; they were changed: fetch the adapter again"
        )
    _check_finite(changes)
    return Adapter(settings, base, changes, provenance)


def _read_config(path: Path) -> tuple[AdapterSettings, str]:
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        raise PackageError(
            "an adapter is a folder with a config.json; it is missing or no JSON here"
        ) from error
    kinds = {"format": str, "base": str, "rank": int, "alpha": int}
    if not isinstance(found, dict) or kinds != {k: type(v) for k, v in found.items()}:
        raise PackageError(f"config.json of an adapter must hold {', '.join(kinds)}")
    if found["format"] != FORMAT:
        raise PackageError(f"config.json of an adapter must be of format '{FORMAT}'")
    try:
        settings = AdapterSettings(rank=found["rank"], alpha=found["alpha"])
    except SettingsError as error:
        raise PackageError(f"in config.json of an adapter {error}") from error
    return settings, found["base"]


def _expected_shapes(network: FMvT, rank: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear) and LAYERS.fullmatch(name):
            shapes[f"{name}.lora_A"] = (rank, layer.in_features)
            shapes[f"{name}.lora_B"] = (layer.out_features, rank)
    if network.config.released:
        for name, value in network.named_parameters():
            if is_extension(name):
                shapes[name] = tuple(value.shape)
    return shapes


def _check_finite(changes: Mapping[str, Tensor]) -> None:
    if not all(torch.isfinite(value).all() for value in changes.values()):
        raise PackageError(
            "an adapter must hold finite numbers that fit float16; train it again with "
            "a lower learning rate"
        )
