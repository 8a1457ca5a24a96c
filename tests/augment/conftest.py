"""A model that is small enough to draw with on any machine."""

from pathlib import Path

import pytest
import torch

from ctflow_fed.augment import Plan, plan
from ctflow_fed.ct.codec import codec_named
from ctflow_fed.ct.report import encoder_named
from ctflow_fed.model import FMvT, FMvTConfig, Provenance, save_package


def save_model(folder: Path, seed: int, method: str = "known") -> Path:
    """Save a network of random weights that draws volumes of 32 x 32 pixels."""
    torch.manual_seed(seed)
    network = FMvT(FMvTConfig(layers=1, features=16, heads=2))
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.05)
    provenance = Provenance(
        codec_id=codec_named("haar").codec_id,
        encoder_id=encoder_named("hashing").encoder_id,
        latent_size=(8, 8),
        slices=16,
        spacing=(2.0, 10.0, 10.0),
        steps=1,
        seed=seed,
        rounds=3,
        sites=2,
        method=method,
    )
    save_package(folder, network, provenance)
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "package", seed=0)


@pytest.fixture(scope="session")
def papers_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the paper's method, which may end a volume early."""
    return save_model(tmp_path_factory.mktemp("papers") / "package", 1, "ctflow")


@pytest.fixture
def small_plan() -> Plan:
    """Four volumes of 8 slices: three composed, one given."""
    return plan(
        target={"Bronchiectasis": 2, "Cardiomegaly": 1},
        reports=["Small pleural effusion on the right."],
        slices=8,
    )
