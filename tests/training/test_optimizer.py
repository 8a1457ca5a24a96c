"""Muon moves matrices by orthogonal steps and leaves all else to AdamW."""

import pytest
import torch
from torch.nn import Parameter
from torch.optim import AdamW

from ctflow_fed.model import FMvTConfig, fresh_network
from ctflow_fed.training import AdapterSettings, TrainSettings
from ctflow_fed.training.adapters import with_adapter
from ctflow_fed.training.optimizer import (
    Muon,
    learning_rate_at,
    optimizer_of,
    orthogonalised,
)
from ctflow_fed.training.step import trained_weights

SMALL = FMvTConfig(layers=1, features=32, heads=2)


@pytest.mark.parametrize("shape", [(24, 24), (72, 24), (24, 96)])
def test_orthogonalising_brings_every_singular_value_near_one(shape: tuple[int, int]):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))

    values = torch.linalg.svdvals(orthogonalised(matrix))

    assert values.min() > 0.6
    assert values.max() < 1.3


def test_a_matrix_without_gradient_moves_nowhere():
    assert torch.equal(orthogonalised(torch.zeros(4, 8)), torch.zeros(4, 8))


def test_the_size_of_a_step_does_not_depend_on_the_size_of_the_gradient():
    moves = []
    for scale in (1.0, 1e-4):
        weight = Parameter(torch.zeros(8, 16))
        optimizer = Muon([weight], [], lr=1e-2, weight_decay=0.0)
        weight.grad = scale * torch.arange(128.0).sin().reshape(8, 16)
        optimizer.step()
        moves.append(weight.detach())

    torch.testing.assert_close(moves[0], moves[1], rtol=1e-3, atol=1e-5)


def test_what_is_no_matrix_moves_as_adamw_moves_it():
    ours, theirs = (Parameter(torch.ones(5)) for _ in range(2))
    optimizers = [
        Muon([Parameter(torch.zeros(2, 2))], [ours], lr=1e-2, weight_decay=0.1),
        AdamW([theirs], lr=1e-2, weight_decay=0.1),
    ]
    for step in range(3):
        for weight, optimizer in zip((ours, theirs), optimizers, strict=True):
            weight.grad = torch.arange(5.0) - step
            optimizer.step()

    assert torch.equal(ours, theirs)


def test_muon_has_the_matrices_of_the_blocks_and_no_others():
    weights = trained_weights(fresh_network(SMALL, seed=0))

    optimizer = optimizer_of(weights, TrainSettings())

    chosen = {id(weight) for weight in optimizer.param_groups[0]["params"]}
    names = {name for name, weight in weights.items() if id(weight) in chosen}
    assert {name.removeprefix("blocks.0.") for name in names} == {
        "attn.qkv.weight",
        "attn.proj.weight",
        "attn_temp.qkv.weight",
        "attn_temp.proj.weight",
        "cross_attn.q_linear.weight",
        "cross_attn.kv_linear.weight",
        "cross_attn.proj.weight",
        "mlp.fc1.weight",
        "mlp.fc2.weight",
    }
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(weights)


def test_the_factors_of_an_adapter_are_adamws():
    pytest.importorskip("peft")
    network = with_adapter(fresh_network(SMALL, seed=0), AdapterSettings(rank=2), 0)

    optimizer = optimizer_of(trained_weights(network), TrainSettings())

    assert not optimizer.param_groups[0]["params"]


def test_the_method_of_the_paper_is_trained_with_adamw():
    weights = trained_weights(fresh_network(SMALL, seed=0))

    assert type(optimizer_of(weights, TrainSettings.ctflow())) is AdamW


def test_the_learning_rate_warms_up_and_then_falls_as_the_inverse_root_of_the_steps():
    settings = TrainSettings(learning_rate=1e-3, warmup_steps=9)

    assert learning_rate_at(0, settings) == pytest.approx(1e-4)
    assert learning_rate_at(9, settings) == pytest.approx(1e-3)
    assert learning_rate_at(499, settings) == pytest.approx(1e-3)
    assert learning_rate_at(1999, settings) == pytest.approx(5e-4)


def test_the_learning_rate_of_the_method_of_the_paper_stays():
    settings = TrainSettings.ctflow(learning_rate=1e-3, warmup_steps=9)

    assert learning_rate_at(10**6, settings) == pytest.approx(1e-3)
