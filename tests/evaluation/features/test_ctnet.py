"""CT-Net with small random weights in the layout of its authors."""

from pathlib import Path

import pytest
import torch
from monai.networks.nets.resnet import ResNet
from safetensors.torch import save_file
from torch import nn

from ctflow_fed.errors import PackageError
from ctflow_fed.evaluation.features import (
    CTNetVolumes,
    FeatureExtractor,
    extractor_named,
)

TRIPLES, WIDTH = 3, 32


class Published(nn.Module):
    """The network as its authors write it, but narrow."""

    def __init__(self) -> None:
        super().__init__()
        made = ResNet(
            block="basic",
            layers=[1, 1, 1, 1],
            block_inplanes=[4, 4, 8, WIDTH],
            spatial_dims=2,
            n_input_channels=3,
            conv1_t_stride=2,
            bias_downsample=False,
        )
        stages = (made.layer1, made.layer2, made.layer3, made.layer4)
        self.features = nn.Sequential(
            made.conv1, made.bn1, nn.ReLU(), made.maxpool, *stages
        )
        self.reducingconvs = nn.Sequential(
            *(nn.Conv3d(TRIPLES, 6, 3, (3, 1, 1)), nn.ReLU()),
            *(nn.Conv3d(6, 5, 3, (3, 1, 1)), nn.ReLU()),
            *(nn.Conv3d(5, 4, (3, 2, 2), (3, 2, 2)), nn.ReLU()),
        )
        self.classifier = nn.Sequential(
            *(nn.Linear(4 * 1 * 5 * 5, 12), nn.ReLU(), nn.Dropout(0.5)),
            *(nn.Linear(12, 7), nn.ReLU(), nn.Dropout(0.5)),
            nn.Linear(7, 16),
        )

    def hidden(self, triples: torch.Tensor) -> torch.Tensor:
        maps = self.features(triples).view(1, TRIPLES, WIDTH, 14, 14)
        return self.classifier[:-1](self.reducingconvs(maps).flatten(1))[0]


@pytest.fixture(scope="module")
def published() -> Published:
    torch.manual_seed(0)
    return Published().eval()


@pytest.fixture
def weights(published: Published, tmp_path: Path) -> Path:
    path = tmp_path / "ctnet.safetensors"
    save_file(published.state_dict(), path)
    return path


@torch.no_grad()
def test_the_last_hidden_layer_is_that_of_the_published_network(published, weights):
    volume = torch.rand(3 * TRIPLES, 420, 420)

    ctnet = extractor_named(f"ctnet:{weights}", 3)

    expected = published.hidden(volume.unflatten(0, (-1, 3)) - 0.449)
    assert isinstance(ctnet, FeatureExtractor)
    assert expected.abs().max() > 0.01
    assert torch.allclose(ctnet.extract(volume[None])[0], expected, atol=1e-5)


@torch.no_grad()
def test_a_volume_is_cut_and_filled_up_about_its_middle(weights):
    ctnet = CTNetVolumes(weights)
    small = torch.rand(5, 300, 450)
    filled = torch.zeros(9, 420, 420)
    filled[2:7, 60:360] = small[:, :, 15:435]

    assert torch.equal(ctnet.extract(small[None]), ctnet.extract(filled[None]))


def test_weights_of_another_network_are_refused(published, tmp_path):
    lacking = {n: v for n, v in published.state_dict().items() if "convs.2." not in n}
    other = dict(published.state_dict())
    other["classifier.0.weight"] = torch.zeros(12, 99)
    flat = {**other, "classifier.0.weight": torch.zeros(12)}
    for name, kept in (("lacking", lacking), ("other", other), ("flat", flat)):
        path = tmp_path / f"{name}.safetensors"
        save_file(kept, path)
        with pytest.raises(PackageError, match="CT-Net"):
            CTNetVolumes(path)
