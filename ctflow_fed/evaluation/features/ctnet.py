"""CT-Net (Draelos et al., 2021): a chest CT classifier whose last layer is a feature.

Its weights come as safetensors with the names of the authors' ``CTNetModel``:
``features`` (a ResNet-18 of three neighbouring slices as colours), ``reducingconvs``
and ``classifier``. Sizes are those of the weights.
"""

from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ctflow_fed.errors import PackageError
from ctflow_fed.evaluation.features.extractor import fitted
from ctflow_fed.evaluation.features.resnet import (
    Weights,
    in_batches,
    read_weights,
    residual_network,
    torchvision_names,
)
from ctflow_fed.files import digest_of
from ctflow_fed.model import default_device
from ctflow_fed.weights import weights_digest

__all__ = ["CTNetVolumes"]

SIDE, MAP_SIDE = 420, 14
COLOURS = 3
IMAGENET_MEAN = 0.449
PARTS = ("features.", "reducingconvs.", "classifier.")
STRIDES = ((3, 1, 1), (3, 1, 1), (3, 2, 2))


class CTNetVolumes:
    """Volumes -> the last hidden layer of CT-Net, 96 numbers.

    A volume is given at 0.8 mm, cut or filled up with the darkest of the window to 402
    slices of 420 x 420, as the network was trained.
    """

    name = "ctnet"
    axes: Literal[2, 3] = 3
    pretrained = True
    spacing_mm = 0.8

    def __init__(self, weights: Path) -> None:
        known = read_weights(weights)
        kinds = {part: _under(known, part) for part in PARTS}
        self.extractor_id = digest_of([self.name, weights_digest(known)])
        slices, convolutions, classifier = kinds.values()
        self._slices = residual_network(torchvision_names(slices), axes=2, channels=3)
        self._slices.avgpool = nn.Identity()
        try:
            self._reduce, self._hidden = _reducing(convolutions), _hidden(classifier)
            self._triples = convolutions["0.weight"].shape[1]
            blank = in_batches(self._slices, torch.zeros(1, COLOURS, SIDE, SIDE))
            self._vector(blank.expand(self._triples, -1))  # the parts fit one another
        except (KeyError, RuntimeError, ValueError):
            raise PackageError(
                "expected the weights of CT-Net (features, reducingconvs, classifier), "
                "got those of another network; choose the file for it"
            ) from None

    def extract(
        self, images: Float[Tensor, "images slices rows cols"]
    ) -> Float[Tensor, "images features"]:
        """Return a vector for each volume."""
        shape = (COLOURS * self._triples, SIDE, SIDE)
        triples = (fitted(each, shape).unflatten(0, (-1, COLOURS)) for each in images)
        return torch.stack(
            [
                self._vector(in_batches(self._slices, each - IMAGENET_MEAN))
                for each in triples
            ]
        )

    def _vector(self, flat: Float[Tensor, "triples maps"]) -> Float[Tensor, " hidden"]:
        """Return the hidden layer for the flat last maps of all triples."""
        maps = flat.reshape(1, len(flat), -1, MAP_SIDE, MAP_SIDE).to(default_device())
        vector: Tensor = self._hidden(self._reduce(maps))
        return vector[0].cpu()


def _under(weights: Weights, part: str) -> Weights:
    return {
        name.removeprefix(part): value
        for name, value in weights.items()
        if name.startswith(part)
    }


def _reducing(weights: Weights) -> nn.Module:
    """Make the convolutions over triples, channels of their maps being depth."""
    layers: list[nn.Module] = []
    for number, stride in enumerate(STRIDES):
        out, into, high, down, across = weights[f"{2 * number}.weight"].shape
        layers += [nn.Conv3d(into, out, (high, down, across), stride), nn.ReLU()]
    return _loaded(nn.Sequential(*layers, nn.Flatten()), weights)


def _hidden(weights: Weights) -> nn.Module:
    """Make the classifier up to its last hidden layer; dropout does nothing here."""
    (wide, into), (narrow, _) = (weights[f"{n}.weight"].shape for n in (0, 3))
    layers = nn.Sequential(
        *(nn.Linear(into, wide), nn.ReLU(), nn.Identity()),
        *(nn.Linear(wide, narrow), nn.ReLU()),
    )
    return _loaded(layers, {n: v for n, v in weights.items() if n[0] != "6"})


def _loaded(network: nn.Module, weights: Weights) -> nn.Module:
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False).to(default_device())
