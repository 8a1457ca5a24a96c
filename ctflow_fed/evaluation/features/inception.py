"""The Inception network of the Fréchet inception distance (arXiv 1706.08500).

Its weights are those of TensorFlow's graph of 2015-12-05, as pytorch-fid and
torch-fidelity converted them, as safetensors. Of torchvision's network of the same
names it differs in its pooling, in how images are scaled and in its 1008 classes.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import (
    avg_pool2d,
    batch_norm,
    conv2d,
    interpolate,
    max_pool2d,
)

from ctflow_fed.errors import PackageError
from ctflow_fed.evaluation.features.resnet import AT_ONCE, Weights, read_weights
from ctflow_fed.files import digest_of
from ctflow_fed.model import default_device
from ctflow_fed.weights import weights_digest

__all__ = ["InceptionSlices"]

SIDE = 299
CLASSES = 1008
EPSILON = 1e-3

STEM = (
    "Conv2d_1a_3x3/2 Conv2d_2a_3x3/1 Conv2d_2b_3x3 max/2 "
    "Conv2d_3b_1x1 Conv2d_4a_3x3/1 max/2"
)
"""Layers in a row. One with a stride (/1, /2) does not pad, any other pads to keep the
size; ``max`` and ``average`` pool 3 x 3. Of layers with | between them all are applied
to the same maps."""

NARROW = ("1x1", "5x5_1 5x5_2", "3x3dbl_1 3x3dbl_2 3x3dbl_3", "average _pool")
HALVE = ("3x3/2", "3x3dbl_1 3x3dbl_2 3x3dbl_3/2", "max/2")
LONG = (
    "1x1",
    "7x7_1 7x7_2 7x7_3",
    "7x7dbl_1 7x7dbl_2 7x7dbl_3 7x7dbl_4 7x7dbl_5",
    "average _pool",
)
HALVE_AGAIN = ("3x3_1 3x3_2/2", "7x7x3_1 7x7x3_2 7x7x3_3 7x7x3_4/2", "max/2")
WIDE = (
    "1x1",
    "3x3_1 3x3_2a|3x3_2b",
    "3x3dbl_1 3x3dbl_2 3x3dbl_3a|3x3dbl_3b",
)
BLOCKS = {
    **dict.fromkeys(("Mixed_5b", "Mixed_5c", "Mixed_5d"), NARROW),
    "Mixed_6a": HALVE,
    **dict.fromkeys(("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"), LONG),
    "Mixed_7a": HALVE_AGAIN,
    "Mixed_7b": (*WIDE, "average _pool"),
    "Mixed_7c": (*WIDE, "max _pool"),  # as the graph has it
}
"""The branches of each block, whose channels follow one another."""

Maps = Float[Tensor, "images _ _ _"]


class InceptionSlices:
    """Slices -> the last pooled layer, 2048 numbers.

    A slice is given at 1 mm and brought to 299 x 299 pixels (bilinear, antialiased),
    three times the same grey.
    """

    name = "inception"
    axes: Literal[2, 3] = 2
    pretrained = True
    spacing_mm = 1.0

    def __init__(self, weights: Path) -> None:
        known = read_weights(weights)
        self.extractor_id = digest_of([self.name, weights_digest(known)])
        self._weights = {n: each.to(default_device()) for n, each in known.items()}
        try:
            is_ours = len(known["fc.weight"]) == CLASSES
            self.extract(torch.zeros(1, SIDE, SIDE))  # all layers fit one another
        except (KeyError, RuntimeError, IndexError):
            is_ours = False
        if not is_ours:
            raise PackageError(
                "expected the weights of the Inception network of 1008 classes by "
                "which the Fréchet distance is defined, got others; choose the file "
                "for it"
            ) from None

    def extract(
        self, images: Float[Tensor, "images rows cols"]
    ) -> Float[Tensor, "images features"]:
        """Return a vector for each slice."""
        return torch.cat([self._vectors(part) for part in images.split(AT_ONCE)])

    def _vectors(
        self, images: Float[Tensor, "images rows cols"]
    ) -> Float[Tensor, "images features"]:
        grey = interpolate(
            images[:, None], (SIDE, SIDE), mode="bilinear", antialias=True
        )
        colours = ((grey * 255 - 128) / 128).expand(-1, 3, -1, -1).to(default_device())
        maps = self._row(colours, "", STEM)
        for block, branches in BLOCKS.items():
            maps = self._beside(maps, f"{block}.branch", branches)
        return maps.mean((2, 3)).cpu()

    def _beside(self, maps: Maps, prefix: str, rows: Iterable[str]) -> Maps:
        """Apply several rows of layers to the same maps; their channels follow."""
        return torch.cat([self._row(maps, prefix, each) for each in rows], 1)

    def _row(self, maps: Maps, prefix: str, layers: str) -> Maps:
        """Apply layers one after the other."""
        for layer in layers.split():
            name, _, stride = layer.partition("/")
            if "|" in layer:
                maps = self._beside(maps, prefix, layer.split("|"))
            elif name == "average":  # over the pixels that there are
                maps = avg_pool2d(maps, 3, 1, 1, count_include_pad=False)
            elif name == "max":
                maps = max_pool2d(maps, 3, int(stride or 1), 0 if stride else 1)
            else:
                maps = _convolved(maps, self._weights, prefix + name, stride)
        return maps


def _convolved(maps: Maps, weights: Weights, name: str, stride: str) -> Maps:
    """Return a convolution, normalised by the statistics kept with it and rectified."""
    kernel = weights[f"{name}.conv.weight"]
    around = [0, 0] if stride else [side // 2 for side in kernel.shape[2:]]
    convolved = conv2d(maps, kernel, stride=int(stride or 1), padding=around)
    normalised = batch_norm(
        convolved,
        weights[f"{name}.bn.running_mean"],
        weights[f"{name}.bn.running_var"],
        weights[f"{name}.bn.weight"],
        weights[f"{name}.bn.bias"],
        eps=EPSILON,
    )
    return normalised.relu()
