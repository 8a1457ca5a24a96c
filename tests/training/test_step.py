"""One step of training."""

from pathlib import Path

import pytest
from torch.nn import functional as F

from ctflow_fed.ct.store import LatentStore
from ctflow_fed.model import FMvTConfig, attention, fresh_network
from ctflow_fed.training import TrainSettings, fit


def test_training_is_the_same_by_the_fused_kernel_of_attention(
    haar_store: Path, monkeypatch: pytest.MonkeyPatch
):
    store, losses = LatentStore.open(haar_store), []
    for attend in (attention.attend, F.scaled_dot_product_attention):
        monkeypatch.setattr(attention, "attend", attend)
        network = fresh_network(FMvTConfig(layers=1, features=32, heads=2), seed=0)
        result = fit(network, store, TrainSettings(batch_clips=2), steps=4, seed=0)
        losses.append(result.losses)

    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
