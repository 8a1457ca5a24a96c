import math

import pytest
import torch
from torch import Tensor

from ctflow_fed.flow import (
    SOLVERS,
    flow_matching_loss,
    logit_normal_times,
    straight_path,
    time_grid,
)

CLIP = (2, 3, 4, 2, 2)


def test_the_path_begins_at_data_and_ends_at_noise():
    data, noise = torch.randn(CLIP), torch.randn(CLIP)

    assert torch.equal(straight_path(data, noise, torch.zeros(2)).x_t, data)
    assert torch.equal(straight_path(data, noise, torch.ones(2)).x_t, noise)


def test_the_velocity_is_the_derivative_of_the_path():
    data, noise = torch.randn(CLIP).double(), torch.randn(CLIP).double()
    t, dt = torch.tensor([0.2, 0.7]).double(), 1e-6
    here, ahead = straight_path(data, noise, t), straight_path(data, noise, t + dt)

    assert torch.allclose((ahead.x_t - here.x_t) / dt, here.u_t, atol=1e-6)


def test_the_loss_is_the_mean_square_of_each_clip():
    u_t = torch.zeros(CLIP)
    velocity = torch.stack([torch.full(CLIP[1:], 1.0), torch.full(CLIP[1:], 3.0)])

    assert flow_matching_loss(velocity, u_t).tolist() == [1.0, 9.0]


def test_times_are_most_often_in_the_middle_and_never_outside():
    t = logit_normal_times(10_000, torch.Generator().manual_seed(0))

    assert t.min() > 0
    assert t.max() < 1
    middle = ((t > 0.25) & (t < 0.75)).float().mean()
    assert middle == pytest.approx(math.erf(math.log(3) / math.sqrt(2)), abs=0.02)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_solver_follows_a_straight_flow_exactly_in_one_step(solver: str):
    data, noise = torch.randn(CLIP), torch.randn(CLIP)

    end = SOLVERS[solver](lambda x, t: noise - data, noise, time_grid(1))

    assert torch.allclose(end, data, atol=1e-6)


def test_heun_is_of_second_order_and_euler_of_first():
    def decay(x: Tensor, t: Tensor) -> Tensor:
        return -x

    x = torch.ones(1, 1, 2, 2, 2, dtype=torch.float64)
    exact = math.e  # dx / dt = -x, from t = 1 back to 0

    def error(solver: str, steps: int) -> float:
        end = SOLVERS[solver](decay, x, time_grid(steps).double())
        return abs(end.mean().item() - exact)

    assert error("euler", 20) / error("euler", 40) == pytest.approx(2, rel=0.1)
    assert error("heun", 20) / error("heun", 40) == pytest.approx(4, rel=0.1)
