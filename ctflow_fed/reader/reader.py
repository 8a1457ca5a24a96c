"""The network that reads findings.

Its logits say whether a volume shows what its report says, its last features how near
a set of volumes is to real ones.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.errors import MissingExtraError, StoreError
from ctflow_fed.files import write_atomically
from ctflow_fed.reader.calibration import Calibration, calibrated, from_json
from ctflow_fed.seeds import derive_seed
from ctflow_fed.shapes import HU

__all__ = ["Reader"]

FORMAT = "ctflow-fed reader 1"
PIXELS = 64
SLICES = 48
"""What the network sees of a scan."""

FEATURES = 64
BATCH = 16


class Reader:
    """A small 3-D ResNet that gives a logit for each of the 18 findings.

    Volumes are HU, int16 ``[slices, rows, cols]``; it sees -1000 to 1000 HU.
    ``known`` are the findings that `calibrate` has found readable.
    """

    def __init__(self) -> None:
        self.network = _network()
        self.known: dict[str, Calibration] = {}

    def train(self, volumes: list[HU], labels: np.ndarray, steps: int) -> None:
        """Train from scratch for a number of steps of 16 volumes."""
        data, target = _seen(volumes), torch.from_numpy(labels).float()
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
        handle = self.network.get_submodule("avgpool").register_forward_hook(
            lambda _, __, pooled: kept.append(pooled.flatten(1))
        )
        parts = [self.network(part) for part in _seen(volumes).split(BATCH)]
        handle.remove()
        return torch.cat(parts).numpy(), torch.cat(kept).numpy()

    @staticmethod
    def reduced(volume: CTVolume) -> HU:
        """Return of a scan what `train` and `read` take."""
        return volume.squared(PIXELS).hu

    def logits(self, volume: CTVolume) -> dict[str, float]:
        """Return the logit of each finding in a scan of any size."""
        (row,) = self.read([self.reduced(volume)])[0].tolist()
        return dict(zip(FINDINGS, row, strict=True))

    def calibrate(self, volumes: list[HU], labels: np.ndarray) -> None:
        """Find out by scans that were held out which findings can be read."""
        self.known = calibrated(self.read(volumes)[0], labels)

    def save(self, path: Path) -> None:
        """Write the weights, and in their header what they can be trusted with."""
        known = {name: asdict(each) for name, each in self.known.items()}
        header = {"format": FORMAT, "known": json.dumps(known, sort_keys=True)}
        weights = self.network.state_dict()
        write_atomically(path, lambda partial: save_file(weights, partial, header))

    def load(self, path: Path) -> None:
        """Read what `save` has written; anything else raises ``StoreError``."""
        try:
            with safe_open(path, "pt") as file:
                header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise ValueError
            known = from_json(json.loads(header["known"]))
            weights = load_file(path)
            if not all(value.isfinite().all() for value in weights.values()):
                raise ValueError
            self.network.load_state_dict(weights)
        except (
            KeyError,
            OSError,
            RecursionError,
            RuntimeError,
            SafetensorError,
            ValueError,
        ):
            raise StoreError(
                "expected a reader of findings, found a file that is none or is "
                "damaged; train it again with: ctflow augment reader"
            ) from None
        self.known = known


def _network() -> torch.nn.Module:
    try:
        from monai.networks.nets.resnet import ResNet
    except ImportError:
        raise MissingExtraError("monai", "augment") from None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("reader weights"))
        network: torch.nn.Module = ResNet(
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
    return network


def _seen(volumes: Sequence[HU]) -> Tensor:
    """Return what the reader sees: ``[volumes, 1, 48, rows, cols]`` in -1..1.

    A volume of another number of slices is resampled to 48.
    """
    parts = []
    for volume in volumes:
        part = torch.from_numpy(volume).float().clamp(-1000, 1000)[None, None] / 1000
        if len(volume) != SLICES:
            part = F.interpolate(
                part, (SLICES, *volume.shape[1:]), mode="trilinear", align_corners=True
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
