import math

import pytest
import torch
from torch import Tensor

from ctflow_fed.flow import (
    SOLVERS,
    flow_matching_loss,
    guided_velocity,
    logit_normal_times,
    shift_for,
    shifted,
    straight_path,
    time_grid,
)

CLIP = (2, 3, 4, 2, 2)
ALIKE = torch.ones(1, 1, 1, 1, 1)


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

    assert flow_matching_loss(velocity, u_t, ALIKE).tolist() == [1.0, 9.0]


def test_the_loss_is_a_weighted_mean_over_channels_and_frames():
    velocity = torch.zeros(1, 2, 2, 1, 1)
    velocity[0, :, :, 0, 0] = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    channels = torch.tensor([0.5, 1.5])[None, :, None, None, None]
    frames = torch.tensor([1.0, 0.0])[None, None, :, None, None]

    loss = flow_matching_loss(velocity, torch.zeros_like(velocity), channels * frames)

    assert loss.item() == pytest.approx((0.5 * 1**2 + 1.5 * 3**2) / (0.5 + 1.5))


def test_what_has_no_weight_does_not_count():
    velocity, u_t = torch.randn(CLIP), torch.randn(CLIP)
    weights = torch.ones(2, 1, 4, 1, 1)
    weights[:, :, 0] = 0
    changed = velocity.clone()
    changed[:, :, 0] = 1e6

    first, second = (flow_matching_loss(v, u_t, weights) for v in (velocity, changed))
    assert torch.equal(first, second)


def test_times_are_most_often_in_the_middle_and_never_outside():
    t = logit_normal_times(10_000, torch.Generator().manual_seed(0))

    assert t.min() > 0
    assert t.max() < 1
    middle = ((t > 0.25) & (t < 0.75)).float().mean()
    assert middle == pytest.approx(math.erf(math.log(3) / math.sqrt(2)), abs=0.02)


def test_a_shift_moves_times_towards_noise_and_leaves_the_ends():
    t = shifted(torch.tensor([0.0, 0.5, 1.0]), 4.0)

    assert t.tolist() == pytest.approx([0.0, 4 * 0.5 / (1 + 3 * 0.5), 1.0])
    assert torch.equal(shifted(time_grid(7), 1.0), time_grid(7))


@pytest.mark.parametrize(
    ("shift", "latents", "expected"),
    [
        (4.0, 16 * 16 * 16, 4.0),
        (4.0, 64 * 16 * 16, 4.0 * math.sqrt(4)),
        (4.0, 16 * 32 * 32, 4.0 * math.sqrt(4)),
        (4.0, 16 * 8 * 8, 4.0 * math.sqrt(1 / 4)),
        (1.5, 2 * 8 * 8, 1.0),
    ],
)
def test_a_shift_grows_with_the_root_of_the_latents(
    shift: float, latents: int, expected: float
):
    assert shift_for(shift, latents) == pytest.approx(expected)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("steps", [1, 5])
def test_a_solver_follows_a_straight_flow_exactly(solver: str, steps: int):
    data, noise = torch.randn(CLIP), torch.randn(CLIP)
    times = shifted(time_grid(steps), 3.0)

    end = SOLVERS[solver](lambda x, t: noise - data, noise, times)

    assert torch.allclose(end, data, atol=1e-5)


def _error(solver: str, steps: int, shift: float = 1.0) -> float:
    """The error of dx / dt = -x, followed from t = 1 back to 0."""

    def decay(x: Tensor, t: Tensor) -> Tensor:
        return -x

    x = torch.ones(1, 1, 2, 2, 2, dtype=torch.float64)
    times = shifted(time_grid(steps).double(), shift)
    return abs(SOLVERS[solver](decay, x, times).mean().item() - math.e)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2), ("ab2", 2)])
def test_a_solver_has_its_order_also_in_steps_of_unequal_length(
    solver: str, order: int, shift: float
):
    fall = _error(solver, 40, shift) / _error(solver, 80, shift)

    assert fall == pytest.approx(2**order, rel=0.1)


def test_ab2_and_euler_evaluate_once_a_step_and_heun_twice_but_for_the_last():
    def evaluations(solver: str) -> int:
        seen = []

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            seen.append(t)
            return x

        SOLVERS[solver](velocity, torch.ones(CLIP), time_grid(6))
        return len(seen)

    assert evaluations("euler") == 6
    assert evaluations("ab2") == 6
    assert evaluations("heun") == 6 + 5


def test_guidance_of_one_gives_what_was_told():
    told, untold = torch.randn(CLIP), torch.randn(CLIP)

    assert torch.allclose(guided_velocity(told, untold, 1.0), told, atol=1e-6)


def test_guidance_goes_on_from_the_best_fit_of_the_untold_velocity():
    told = torch.tensor([3.0, 1.0])[None, :, None, None, None]
    untold = torch.tensor([2.0, 0.0])[None, :, None, None, None]

    guided = guided_velocity(told, untold, 2.5)

    s = (3.0 * 2.0 + 1.0 * 0.0) / (2.0**2 + 0.0**2)
    expected = [s * 2.0 + 2.5 * (3.0 - s * 2.0), s * 0.0 + 2.5 * (1.0 - s * 0.0)]
    assert guided.flatten().tolist() == pytest.approx(expected)


def test_each_clip_is_guided_by_itself():
    told, untold = torch.randn(CLIP), torch.randn(CLIP)

    both = guided_velocity(told, untold, 3.0)
    alone = guided_velocity(told[1:], untold[1:], 3.0)
    assert torch.allclose(both[1:], alone, atol=1e-5)


def test_an_untold_velocity_of_zero_is_no_division_by_zero():
    told = torch.randn(CLIP)

    guided = guided_velocity(told, torch.zeros(CLIP), 2.0)
    assert torch.allclose(guided, 2.0 * told)
