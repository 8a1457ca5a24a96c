"""The classifier of the utility test: small, 3-D, the same for every arm."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Generator, Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, pad

from ctflow_fed.errors import MissingExtraError
from ctflow_fed.evaluation.volumes import Labels, Volumes
from ctflow_fed.seeds import derive_seed

__all__ = ["RESNET", "Classifier", "Recipe", "fit_and_score"]

SHIFT = 2  # voxels: how far, at most, a training volume is moved along each axis
GAIN = 0.1  # how much brighter or darker, at most
NOISE = 0.02  # standard deviation, of a window that is 2 wide

_first_weights = threading.Lock()


@dataclass(frozen=True)
class Recipe:
    """How every arm is trained: a fixed number of steps, the last weights are kept.

    Augmentation moves, brightens and roughens ``strength`` times as much as usual.
    """

    steps: int
    batch: int
    learning_rate: float
    seed: int
    strength: int = 1


@dataclass(frozen=True)
class Classifier:
    """A network: ``make`` is told how many findings it shall give a logit for.

    It is given volumes ``[n, 1, x, y, z]`` in -1..1. ``name`` tells its fits from
    those of others.
    """

    name: str
    make: Callable[[int], nn.Module]


def _resnet(findings: int) -> nn.Module:
    try:
        from monai.networks.nets.resnet import ResNet
    except ImportError as error:
        raise MissingExtraError("monai", "evaluation") from error
    network: nn.Module = ResNet(
        block="basic",
        layers=[1, 1, 1, 1],
        block_inplanes=[8, 16, 32, 64],
        spatial_dims=3,
        n_input_channels=1,
        conv1_t_size=5,
        conv1_t_stride=2,
        num_classes=findings,
        norm=("group", {"num_groups": 4}),  # a batch is too small for its own
    )
    return network


RESNET = Classifier("resnet", _resnet)
"""The classifier where nobody gives another: MONAI's, small."""


def fit_and_score(
    train: Volumes,
    labels: Labels,
    test: Float[Tensor, "tested 1 x y z"],
    recipe: Recipe,
    classifier: Classifier = RESNET,
) -> Float64[np.ndarray, "tested findings"]:
    """Train on ``train`` and return the probability of each finding in ``test``."""
    network = _network(labels.shape[1], recipe.seed, classifier)
    target = torch.from_numpy(labels).float()
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=recipe.learning_rate, total_steps=recipe.steps
    )
    generator = Generator().manual_seed(derive_seed("classifier", recipe.seed))
    network.train()
    for chosen in _batches(len(train), recipe, generator):
        logits = network(_augmented(train[chosen], generator, recipe.strength))
        loss = binary_cross_entropy_with_logits(logits, target[chosen])
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    return _probabilities(network, test, recipe.batch)


def _network(findings: int, seed: int, classifier: Classifier) -> nn.Module:
    # MONAI draws first weights from the global state, which all threads share.
    with _first_weights, torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("classifier weights", seed))
        return classifier.make(findings)


def _batches(items: int, recipe: Recipe, generator: Generator) -> Iterator[Tensor]:
    """Yield ``recipe.steps`` batches; every item once, in random order, then again."""
    needed = recipe.steps * recipe.batch
    rounds = -(-needed // items)
    order = torch.cat(
        [torch.randperm(items, generator=generator) for _ in range(rounds)]
    )
    for start in range(0, needed, recipe.batch):
        yield order[start : min(start + recipe.batch, needed)]


def _augmented(volumes: Volumes, generator: Generator, strength: int) -> Volumes:
    """Mirror, move, brighten and add noise: cheap, and the same odds for every arm."""
    far = SHIFT * strength
    moved = torch.stack([_moved(volume, far, generator) for volume in volumes])
    gain = 1 + GAIN * strength * _uniform(len(volumes), generator)
    noise = torch.randn(moved.shape, generator=generator)
    return moved * gain[:, None, None, None, None] + NOISE * strength * noise


def _moved(volume: Tensor, far: int, generator: Generator) -> Tensor:
    offsets = torch.randint(2 * far + 1, (3,), generator=generator).tolist()
    wide = pad(volume, (far,) * 6, mode="replicate")
    x, y, z = (
        slice(offset, offset + length)
        for offset, length in zip(offsets, volume.shape[1:], strict=True)
    )
    moved = wide[:, x, y, z]
    mirror = torch.rand(1, generator=generator).item() < 0.5
    return moved.flip(1) if mirror else moved  # no finding is tied to a side


def _uniform(count: int, generator: Generator) -> Tensor:
    return 2 * torch.rand(count, generator=generator) - 1


def _probabilities(
    network: nn.Module, volumes: Float[Tensor, "tested 1 x y z"], batch: int
) -> Float64[np.ndarray, "tested findings"]:
    network.eval()
    with torch.inference_mode():
        parts = [
            network(volumes[start : start + batch])
            for start in range(0, len(volumes), batch)
        ]
        logits = torch.cat(parts)
    probabilities: np.ndarray = logits.double().sigmoid().numpy()
    return probabilities
