import math

import pytest
import torch

from ctflow_fed.model.conditions import FrameConditions
from ctflow_fed.model.neighbours import (
    LENGTH_MM,
    PACE,
    Neighbours,
    SimplerPath,
    nearness,
)


def _frames(known: list[bool], noise: float = 0.0, count: int = 1) -> FrameConditions:
    """Frames every 3 mm."""
    geometry = torch.zeros(count, len(known), 4)
    geometry[..., 0] = torch.arange(len(known)) * 3.0 / 300
    rows = torch.tensor(known).repeat(count, 1)
    return FrameConditions.of(geometry, rows, torch.full((count,), noise))


def _clip(frames: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 5, frames, 3, 3, generator=generator)


def _trained(length_mm: float = 20.0) -> Neighbours:
    """Neighbours that trust a channel wholly, apart from what the distance takes."""
    neighbours = Neighbours(5)
    torch.nn.init.constant_(neighbours.share, 10.0)
    torch.nn.init.constant_(neighbours.length, math.log(length_mm / LENGTH_MM) / PACE)
    return neighbours


TIME = torch.full((1, 1, 1, 1, 1), 0.3)


@torch.no_grad()
@pytest.mark.parametrize("time", [0.0, 0.3, 1.0])
def test_what_is_left_of_data_lies_on_a_straight_path_with_their_noise(time: float):
    z, noise, t = _clip(4, 1), _clip(4, 2), torch.full_like(TIME, time)
    guess = _trained()(_clip(4, 0), _frames([True, False, False, False]))
    data = guess.mean + guess.spread * z

    path = SimplerPath.of((1 - t) * data + t * noise, t, guess)

    torch.testing.assert_close(path.z_t, (1 - path.t) * z + path.t * noise)
    torch.testing.assert_close(path.velocity(noise - z), noise - data)


@torch.no_grad()
@pytest.mark.parametrize("neighbours", [_trained(), Neighbours(5)])
def test_where_nothing_is_known_or_trained_nothing_is_guessed(neighbours: Neighbours):
    nothing, untrained = 4 * [False], [True, False, False, True]
    known = nothing if neighbours.share.any() else untrained

    mean, spread = neighbours(_clip(4, 1), _frames(known))

    assert mean.abs().max() < 1e-6
    torch.testing.assert_close(spread, torch.ones_like(spread))


@torch.no_grad()
@pytest.mark.parametrize("known", [[0], [0, 6], [2, 3]])
def test_the_guess_is_that_of_a_gaussian_process(known: list[int]):
    frames = _frames([index in known for index in range(7)])

    mean, spread = _trained(length_mm=10.0)(torch.ones(1, 5, 7, 3, 3), frames)

    mm = 3.0 * torch.arange(7.0)
    covariance = torch.exp(-(mm[:, None] - mm).abs() / 10.0)
    weights = torch.linalg.solve(covariance[known][:, known], covariance[known]).T
    left = 1 - (weights * covariance[:, known]).sum(1)
    torch.testing.assert_close(mean[0, 0, :, 0, 0], weights.sum(1))
    unknown = [index not in known for index in range(7)]
    torch.testing.assert_close(spread[0, 0, unknown, 0, 0], left[unknown].sqrt())


@torch.no_grad()
def test_a_frame_near_a_known_one_begins_near_the_end_of_its_path():
    guess = _trained()(_clip(6, 1), _frames([True] + 5 * [False]))

    path = SimplerPath.of(_clip(6, 0), TIME, guess)

    assert guess.spread[0, 0, :, 0, 0].diff().min() > 0
    assert path.t[0, 0, :, 0, 0].diff().max() < 0


@torch.no_grad()
def test_a_noisy_context_is_trusted_less_and_leaves_more():
    known, context = [True, False, False, True], torch.ones(1, 5, 4, 3, 3)

    clean = _trained()(context, _frames(known))
    noisy = _trained()(context, _frames(known, noise=0.6))

    assert (noisy.mean < clean.mean).all()
    assert (noisy.spread > clean.spread).all()


def test_the_guess_is_learnt_by_its_likelihood():
    generator = torch.Generator().manual_seed(0)
    level = torch.randn(512, 5, 1, 1, 1, generator=generator)
    data = level + 0.3 * torch.randn(512, 5, 3, 1, 1, generator=generator)
    data /= math.sqrt(1.09)
    frames = _frames([False, True, False], count=512)
    context = data[:, :, 1:2].expand(-1, -1, 3, 1, 1)
    neighbours = Neighbours(5)
    optimizer = torch.optim.Adam(neighbours.parameters(), lr=0.02)
    for _ in range(300):
        mean, spread = neighbours(context, frames)
        unlikely = ((data - mean) / spread).square() / 2 + spread.log()
        optimizer.zero_grad()
        unlikely[:, :, ::2].mean().backward()
        optimizer.step()

    correlation = 1 / 1.09
    trust, left = (mean / context)[0, :, 0], spread[0, :, 0]
    assert trust.mean().item() == pytest.approx(correlation, abs=0.03)
    assert left.mean().item() == pytest.approx((1 - correlation**2) ** 0.5, abs=0.03)


def test_nearness_falls_with_the_distance():
    near = nearness(_frames([True, False, False, True]))

    below, above = near[0].unflatten(1, (2, 3)).unbind(1)
    assert (below[:3].diff(dim=0) < 0).all()
    assert torch.equal(above, below.flip(0))
