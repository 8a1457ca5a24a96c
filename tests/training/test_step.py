"""One step of training."""

from contextlib import nullcontext
from pathlib import Path

import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel

from ctflow_fed.ct.store import LatentStore
from ctflow_fed.model import FMvTConfig, fresh_network
from ctflow_fed.training import TrainSettings, fit, step


def test_training_is_the_same_by_either_kernel_of_attention(
    haar_store: Path, monkeypatch: pytest.MonkeyPatch
):
    store, losses = LatentStore.open(haar_store), []
    for kernel in (lambda _: nullcontext(), lambda _: sdpa_kernel(SDPBackend.MATH)):
        monkeypatch.setattr(step, "differentiable_attention", kernel)
        network = fresh_network(FMvTConfig(layers=1, features=32, heads=2), seed=0)
        result = fit(network, store, TrainSettings(batch_clips=2), steps=4, seed=0)
        losses.append(result.losses)

    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
