"""The program of a site with a random step in place of training.

All else is the real program, which lies beside it in the bundle as `client.site`.
"""

import torch
from client.site import app

from ctflow_fed.ct.store import LatentStore
from ctflow_fed.federation import local_fit
from ctflow_fed.model import FMvT
from ctflow_fed.seeds import derive_seed
from ctflow_fed.training.fit import FitResult
from ctflow_fed.training.optimizer import OptimizerMemory

__all__ = ["app", "random_step"]

BLOCK, LENGTH = 2**20, 1e-3


@torch.no_grad()
def random_step(network: FMvT, seed: int) -> None:
    """Move every weight that is trained by noise of a block that repeats."""
    noise = torch.randn(BLOCK, generator=torch.Generator().manual_seed(seed))
    for weight in network.parameters():
        for piece in weight.view(-1).split(BLOCK) if weight.requires_grad else ():
            piece.add_(noise[: len(piece)], alpha=LENGTH)


def fit(
    network: FMvT,
    store: LatentStore,
    settings: object,
    *,
    steps: int,
    seed: int,
    round_number: int,
    site: str,
    memory: object,
) -> FitResult:
    """Do what `ctflow_fed.training.fit` does, but at random."""
    random_step(network, derive_seed("transport", seed, round_number, site) % 2**63)
    slices = sum(record.slices for record in store.records)
    return FitResult((1.0,) * steps, slices, OptimizerMemory({}, 0))


def evaluate_loss(*_: object, **__: object) -> float:
    """Look at no data."""
    return 1.0


local_fit.fit = fit
local_fit.evaluate_loss = evaluate_loss
