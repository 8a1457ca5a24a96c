"""A model that draws noise fast: for what is measured around a model."""

from pathlib import Path

import torch

from ctflow_fed.ct.codec import codec_named
from ctflow_fed.ct.report import encoder_named
from ctflow_fed.model import FMvT, FMvTConfig, Provenance, save_package

__all__ = ["save_tiny_model"]


def save_tiny_model(folder: Path, pixels: int = 16) -> Path:
    """Save a network of random weights that draws volumes of so many pixels a side."""
    torch.manual_seed(0)
    network = FMvT(FMvTConfig(layers=1, features=16, heads=2))
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.05)
    codec = codec_named("haar")
    side = pixels // codec.factor
    provenance = Provenance(
        codec_id=codec.codec_id,
        encoder_id=encoder_named("hashing").encoder_id,
        latent_size=(side, side),
        slices=16,
        spacing=(2.0, 10.0, 10.0),
        steps=1,
        seed=0,
    )
    save_package(folder, network, provenance)
    return folder
