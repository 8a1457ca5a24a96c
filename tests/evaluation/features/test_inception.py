"""The Inception network, against what torch-fidelity computes with the same weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ctflow_fed.errors import PackageError
from ctflow_fed.evaluation.features import FeatureExtractor, extractor_named

LAYOUT = Path(__file__).parent / "inception_layout.txt"
"""Each convolution of the published network: name, channels out and in, kernel."""

EXPECTED = {0: 3.20873, 666: 14.64545, 1313: 1.43049, 1917: 12.88665}
"""Some of what torch-fidelity 0.4.0 gave for `slice_of` with the weights `drawn`."""


def drawn() -> dict[str, torch.Tensor]:
    """Return small random weights in the published layout, always the same."""
    generator = torch.Generator().manual_seed(7)
    weights = {}
    for line in LAYOUT.read_text().split("\n")[:-1]:
        name, *sides = line.split()
        shape = [int(side) for side in sides]
        scale = (2 / (shape[1] * shape[2] * shape[3])) ** 0.5
        kernel = torch.randn(shape, generator=generator) * scale
        bias, mean = 0.1 * torch.randn(2, shape[0], generator=generator)
        gain, variance = 0.5 + torch.rand(2, shape[0], generator=generator)
        weights |= {
            f"{name}.conv.weight": kernel,
            f"{name}.bn.weight": gain,
            f"{name}.bn.bias": bias.clone(),
            f"{name}.bn.running_mean": mean.clone(),
            f"{name}.bn.running_var": variance,
        }
    weights["fc.weight"], weights["fc.bias"] = (
        torch.zeros(1008, 2048),
        torch.zeros(1008),
    )
    return {name: value.clone() for name, value in weights.items()}


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("inception") / "inception.safetensors"
    save_file(drawn(), path)
    return path


def slice_of(side: int) -> torch.Tensor:
    """Return grey values of 8 bits, as torch-fidelity takes them, as 0..1."""
    values = torch.arange(side)[:, None] * torch.arange(side) % 256
    return values[None] / 255


@torch.no_grad()
def test_slices_become_what_torch_fidelity_makes_of_them(weights):
    inception = extractor_named(f"inception:{weights}", 2)

    vector = inception.extract(slice_of(299))[0]

    assert isinstance(inception, FeatureExtractor)
    assert vector.shape == (2048,)
    for place, value in EXPECTED.items():
        assert float(vector[place]) == pytest.approx(value, rel=1e-4)


@torch.no_grad()
def test_slices_of_any_size_are_given_one_by_one_or_together(weights):
    inception = extractor_named(f"inception:{weights}", 2)
    images = torch.rand(2, 90, 120, generator=torch.Generator().manual_seed(1))

    together = inception.extract(images)

    alone = torch.cat([inception.extract(each[None]) for each in images])
    assert torch.allclose(together, alone, atol=1e-3)


def test_weights_of_another_network_are_refused(tmp_path):
    whole = drawn()
    kernel = "Mixed_6a.branch3x3.conv.weight"
    other = {
        "lacking": {name: each for name, each in whole.items() if name != kernel},
        "misfit": whole | {kernel: torch.zeros(7, 3, 3, 3)},
        "torchvision": whole | {"fc.weight": torch.zeros(1000, 2048)},
    }
    for name, kept in other.items():
        path = tmp_path / f"{name}.safetensors"
        save_file(kept, path)
        with pytest.raises(PackageError, match="1008 classes"):
            extractor_named(f"inception:{path}", 2)
