"""Extractors that have learnt: residual networks whose weights the user has.

Weights come as safetensors (convert what was published as a pickle with
``safetensors.torch.save_file``). Two layouts of names are read: that of torchvision
(``conv1``, ``layer1.0.conv1``, ...; MedicalNet's with ``module.`` before it) and that
of RadImageNet (``backbone.0``, ``backbone.4.0.conv1``, ...), the same network as a
sequence. Depth and widths are those of the weights.
"""

import re
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ctflow_fed.errors import MissingExtraError, PackageError
from ctflow_fed.files import digest_of
from ctflow_fed.model import default_device
from ctflow_fed.weights import weights_digest

__all__ = [
    "AT_ONCE",
    "ResNetSlices",
    "ResNetVolumes",
    "Weights",
    "in_batches",
    "read_weights",
    "residual_network",
    "torchvision_names",
]

SEQUENCE = {"0": "conv1", "1": "bn1", **{str(3 + n): f"layer{n}" for n in range(1, 5)}}
"""The places in a network that was made a sequence of its children."""

STAGES = (1, 2, 3, 4)
MOST_BLOCKS = 64
MOST_CHANNELS = 4096
AT_ONCE = 8

SCALES = {
    # (x - 127.5) * 2 / 255, as in RadImageNet's example.
    "radimagenet": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Mean and standard deviation of each colour that weights were trained with."""

Weights = dict[str, Tensor]


class ResNetSlices:
    """Slices -> the pooled last layer of a 2-D network, 2048 numbers of a ResNet-50.

    A slice is given at 1 mm, three times the same grey, scaled as ``kind`` was trained.
    """

    axes: Literal[2, 3] = 2
    pretrained = True
    spacing_mm = 1.0

    def __init__(self, weights: Path, kind: Literal["radimagenet", "imagenet"]) -> None:
        known = torchvision_names(read_weights(weights))
        self.name = f"{kind}-resnet"
        self.extractor_id = digest_of([self.name, weights_digest(known)])
        mean, std = (torch.tensor(part)[:, None, None] for part in SCALES[kind])
        self._mean, self._std = mean, std
        self._network = residual_network(known, axes=2, channels=3)

    def extract(
        self, images: Float[Tensor, "images rows cols"]
    ) -> Float[Tensor, "images features"]:
        """Return a vector for each slice."""
        colours = images[:, None].expand(-1, 3, -1, -1)
        return in_batches(self._network, (colours - self._mean) / self._std)


class ResNetVolumes:
    """Volumes -> the pooled last layer of a 3-D network such as MedicalNet's.

    A volume is given at 2 mm with a mean of 0 and a standard deviation of 1.
    """

    name = "medicalnet-resnet"
    axes: Literal[2, 3] = 3
    pretrained = True
    spacing_mm = 2.0

    def __init__(self, weights: Path) -> None:
        known = torchvision_names(read_weights(weights))
        self.extractor_id = digest_of([self.name, weights_digest(known)])
        self._network = residual_network(known, axes=3, channels=1)

    def extract(
        self, images: Float[Tensor, "images slices rows cols"]
    ) -> Float[Tensor, "images features"]:
        """Return a vector for each volume."""
        mean = images.mean((1, 2, 3), keepdim=True)
        std = images.std((1, 2, 3), keepdim=True).clamp(min=1e-6)
        return in_batches(self._network, ((images - mean) / std)[:, None])


def read_weights(path: Path) -> Weights:
    """Read weights as they are; raises ``PackageError`` for what is no safetensors."""
    try:
        return load_file(path)
    except (OSError, SafetensorError):
        raise PackageError(
            "expected the weights of a network as safetensors, got a file that cannot "
            "be read as such; convert it with safetensors.torch.save_file"
        ) from None


def torchvision_names(weights: Weights) -> Weights:
    """Return weights by torchvision's names for them, without the classifier."""
    return {
        _renamed(name): value
        for name, value in weights.items()
        if not _renamed(name).startswith(("fc.", "conv_seg."))
    }


def _renamed(name: str) -> str:
    name = name.removeprefix("module.")
    place = re.fullmatch(r"(?:backbone\.)?(\d+)\.(.+)", name)
    if place and place[1] in SEQUENCE:
        return f"{SEQUENCE[place[1]]}.{place[2]}"
    return name


def residual_network(weights: Weights, *, axes: int, channels: int) -> nn.Module:
    """Make the network that the weights are of, on the default device."""
    try:
        from monai.networks.nets.resnet import ResNet
    except ImportError as error:
        raise MissingExtraError("monai", "evaluation") from error
    refused = PackageError(
        f"expected the weights of a {axes}-D residual network in torchvision's, "
        "RadImageNet's or MedicalNet's layout, got others; choose the file for it"
    )
    try:
        network: nn.Module = ResNet(
            **_shape_of(weights),
            spatial_dims=axes,
            n_input_channels=channels,
            conv1_t_size=weights["conv1.weight"].shape[-1],
            conv1_t_stride=2,
            feed_forward=False,
            bias_downsample=False,
        )
        found = network.load_state_dict(weights, strict=False)
    except (KeyError, ValueError, RuntimeError, IndexError):
        raise refused from None
    lacking = [n for n in found.missing_keys if not n.endswith("num_batches_tracked")]
    if lacking or found.unexpected_keys:
        raise refused
    return network.eval().requires_grad_(False).to(default_device())


def _shape_of(weights: Weights) -> dict[str, Any]:
    """Return depth and widths, as MONAI's network takes them."""
    blocks = [
        len({name.split(".")[1] for name in weights if name.startswith(f"layer{n}.")})
        for n in STAGES
    ]
    widths = [int(weights[f"layer{n}.0.conv1.weight"].shape[0]) for n in STAGES]
    if max(blocks) > MOST_BLOCKS or max(widths) > MOST_CHANNELS:
        raise ValueError
    return {
        "layers": blocks,
        "block_inplanes": widths,
        "block": "bottleneck" if "layer1.0.conv3.weight" in weights else "basic",
        # Without weights of its own a shortcut takes every second voxel.
        "shortcut_type": "B" if "layer2.0.downsample.0.weight" in weights else "A",
    }


def in_batches(network: nn.Module, images: Tensor) -> Tensor:
    """Return the vector that a network gives for each image, a few at a time."""
    device = next(network.parameters()).device
    parts = [
        network(part.to(device)).flatten(1).cpu() for part in images.split(AT_ONCE)
    ]
    return torch.cat(parts)
