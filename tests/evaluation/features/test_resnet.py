"""Extractors with weights of the user, in the layouts in which they are published."""

from pathlib import Path

import pytest
import torch
from monai.networks.nets.resnet import ResNet
from safetensors.torch import save_file

from ctflow_fed.errors import PackageError, SettingsError
from ctflow_fed.evaluation.features import (
    FeatureExtractor,
    HaarVolumes,
    ResNetSlices,
    ResNetVolumes,
    extractor_named,
)

CHILDREN = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
"""The places of torchvision's ResNet among its children."""


def network(axes: int, block: str = "bottleneck", shortcut: str = "B") -> ResNet:
    torch.manual_seed(0)
    made = ResNet(
        block=block,
        layers=[2, 1, 1, 1],
        block_inplanes=[4, 6, 8, 10],
        spatial_dims=axes,
        n_input_channels=3 if axes == 2 else 1,
        conv1_t_stride=2,
        shortcut_type=shortcut,
        num_classes=5,
        bias_downsample=False,
    )
    return made.eval()


def saved(weights: dict[str, torch.Tensor], path: Path) -> Path:
    save_file({name: value.contiguous() for name, value in weights.items()}, path)
    return path


def headless(made: ResNet, images: torch.Tensor) -> torch.Tensor:
    made.fc = None
    return made(images).flatten(1)


def as_sequence(name: str) -> str:
    head, rest = name.split(".", 1)
    return f"backbone.{CHILDREN[head]}.{rest}"


@torch.no_grad()
def test_weights_in_torchvision_s_and_in_radimagenet_s_layout_are_one(tmp_path: Path):
    made = network(2)
    weights = made.state_dict()
    plain = saved(weights, tmp_path / "plain.safetensors")
    sequence = saved(
        {as_sequence(n): v for n, v in weights.items() if not n.startswith("fc.")},
        tmp_path / "sequence.safetensors",
    )
    images = torch.rand(3, 40, 40)

    one, other = (ResNetSlices(path, "radimagenet") for path in (plain, sequence))
    expected = headless(made, 2 * images[:, None].expand(-1, 3, -1, -1) - 1)
    assert torch.allclose(one.extract(images), expected, atol=1e-5)
    assert torch.equal(one.extract(images), other.extract(images))
    assert one.extractor_id == other.extractor_id
    assert isinstance(one, FeatureExtractor)


@torch.no_grad()
@pytest.mark.parametrize(("block", "shortcut"), [("basic", "A"), ("bottleneck", "B")])
def test_weights_of_medicalnet_are_read_whatever_their_depth(tmp_path, block, shortcut):
    made = network(3, block, shortcut)
    weights = {f"module.{name}": value for name, value in made.state_dict().items()}
    path = saved(weights, tmp_path / "medicalnet.safetensors")
    volumes = torch.randn(2, 24, 24, 24)
    volumes = torch.stack([(each - each.mean()) / each.std() for each in volumes])

    found = ResNetVolumes(path).extract(3 * volumes + 1)
    assert torch.allclose(found, headless(made, volumes[:, None]), atol=1e-4)


def test_the_kind_of_images_that_weights_are_of_is_part_of_the_id(tmp_path: Path):
    path = saved(network(2).state_dict(), tmp_path / "weights.safetensors")

    names = [extractor_named(f"{k}:{path}", 2) for k in ("radimagenet", "imagenet")]
    assert names[0].extractor_id != names[1].extractor_id
    assert all(each.pretrained for each in names)


def test_weights_of_something_else_are_refused(tmp_path: Path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no weights")
    other = saved({"conv1.weight": torch.zeros(3, 3)}, tmp_path / "other.safetensors")
    lacking = network(2).state_dict()
    del lacking["layer3.0.bn2.weight"]
    volumes = saved(network(3).state_dict(), tmp_path / "volumes.safetensors")

    with pytest.raises(PackageError, match="cannot be read"):
        ResNetSlices(broken, "imagenet")
    for path in (other, saved(lacking, tmp_path / "lacking.safetensors"), volumes):
        with pytest.raises(PackageError, match="2-D residual network"):
            ResNetSlices(path, "imagenet")


def test_a_name_that_is_none_is_refused():
    assert extractor_named("haar", 3).extractor_id == HaarVolumes().extractor_id
    for name, axes in (("medicalnet:x", 2), ("radimagenet:x", 3), ("radimagenet", 2)):
        with pytest.raises(SettingsError, match="expected the extractor haar"):
            extractor_named(name, axes)
