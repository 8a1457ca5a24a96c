"""A reader of findings, trained on real phantoms: what tells findings in a volume.

Its logits measure whether synthetic volumes follow their reports, its last features
how near their distribution is to that of real ones.
"""

from pathlib import Path

import numpy as np
import torch
from monai.networks.nets.resnet import ResNet
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.seeds import derive_seed
from ctflow_fed.shapes import HU

FEATURES = 64
BATCH = 16


class Reader:
    """A small 3-D ResNet that gives a logit for each of the 18 findings.

    Volumes are HU, int16 ``[slices, rows, cols]``; it sees -1000 to 1000 HU.
    """

    def __init__(self) -> None:
        torch.manual_seed(derive_seed("reader weights"))
        self.network = ResNet(
            block="basic",
            layers=[1, 1, 1, 1],
            block_inplanes=[16, 24, 40, FEATURES],
            spatial_dims=3,
            n_input_channels=1,
            conv1_t_size=5,
            conv1_t_stride=2,
            num_classes=len(FINDINGS),
            norm=("group", {"num_groups": 4}),
        )

    def train(self, volumes: list[HU], labels: np.ndarray, steps: int) -> None:
        """Train from scratch for a number of steps of 16 volumes."""
        data, target = seen(volumes), torch.from_numpy(labels).float()
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=3e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=3e-3, total_steps=steps
        )
        generator = torch.Generator().manual_seed(derive_seed("reader"))
        self.network.train()
        for _ in tqdm(range(steps), desc="reader", disable=None):
            chosen = torch.randint(len(data), (BATCH,), generator=generator)
            logits = self.network(_varied(data[chosen], generator))
            loss = F.binary_cross_entropy_with_logits(logits, target[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()

    @torch.no_grad()
    def read(self, volumes: list[HU]) -> tuple[np.ndarray, np.ndarray]:
        """Return logits ``[volumes, 18]`` and features ``[volumes, 64]``."""
        self.network.eval()
        kept: list[Tensor] = []
        handle = self.network.avgpool.register_forward_hook(
            lambda _, __, pooled: kept.append(pooled.flatten(1))
        )
        parts = [self.network(part) for part in seen(volumes).split(BATCH)]
        handle.remove()
        return torch.cat(parts).numpy(), torch.cat(kept).numpy()

    def save(self, path: Path) -> None:
        """Write the weights."""
        save_file(self.network.state_dict(), path)

    def load(self, path: Path) -> None:
        """Read the weights."""
        self.network.load_state_dict(load_file(path))


def seen(volumes: list[HU], slices: int = 48) -> Tensor:
    """Return what the reader sees: ``[volumes, 1, 48, rows, cols]`` in -1..1.

    A volume of another number of slices is resampled to 48.
    """
    parts = []
    for volume in volumes:
        part = torch.from_numpy(volume).float().clamp(-1000, 1000)[None, None] / 1000
        if len(volume) != slices:
            part = F.interpolate(
                part, (slices, *volume.shape[1:]), mode="trilinear", align_corners=True
            )
        parts.append(part[0])
    return torch.stack(parts)


def _varied(volumes: Tensor, generator: torch.Generator) -> Tensor:
    """Move, brighten and grain: the reader must not live on what scanners leave."""
    shifts = torch.randint(-2, 3, (3,), generator=generator).tolist()
    moved = torch.roll(volumes, shifts, dims=(2, 3, 4))
    gain = 1 + 0.1 * (2 * torch.rand(len(volumes), generator=generator) - 1)
    noise = torch.randn(volumes.shape, generator=generator)
    return moved * gain[:, None, None, None, None] + 0.03 * noise
