import pytest
import torch

from ctflow_fed.model.conditions import FrameConditions
from ctflow_fed.model.neighbours import Neighbours, nearness


def _frames(known: list[bool], noise: float = 0.0, mm: float = 3.0) -> FrameConditions:
    geometry = torch.zeros(1, len(known), 4)
    geometry[..., 0] = torch.arange(len(known)) * mm / 300
    return FrameConditions.of(geometry, torch.tensor([known]), torch.tensor([noise]))


def _clip(frames: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 5, frames, 3, 3, generator=generator)


def _trained() -> Neighbours:
    neighbours = Neighbours(5)
    generator = torch.Generator().manual_seed(3)
    torch.nn.init.normal_(neighbours.guess.weight, std=0.4, generator=generator)
    return neighbours


TIME = torch.full((1, 1, 1, 1, 1), 0.3)


@torch.no_grad()
@pytest.mark.parametrize("time", [0.0, 0.3, 1.0])
def test_what_is_left_of_data_lies_on_a_straight_path_with_their_noise(time: float):
    frames, context = _frames([True, False, False, False]), _clip(4, 0)
    z, noise, t = _clip(4, 1), _clip(4, 2), TIME * time / 0.3
    guess = _trained()(noise, t, context, frames)
    data = guess.mean + guess.spread * z

    path = _trained()((1 - t) * data + t * noise, t, context, frames)

    torch.testing.assert_close(path.z_t, (1 - path.t) * z + path.t * noise)
    torch.testing.assert_close(path.velocity(noise - z), noise - data)


@torch.no_grad()
def test_where_nothing_is_known_nothing_is_guessed():
    noisy, context = _clip(4, 0), _clip(4, 1)

    path = _trained()(noisy, TIME, context, _frames([False] * 4))

    assert path.mean.abs().max() == 0
    torch.testing.assert_close(path.spread, torch.ones_like(path.spread))
    torch.testing.assert_close(path.z_t, noisy)


@torch.no_grad()
def test_a_frame_near_a_known_one_begins_near_the_end_of_its_path():
    neighbours = Neighbours(5)
    neighbours.guess.weight.data.zero_()
    neighbours.guess.weight.data[5:] = -0.5

    path = neighbours(_clip(6, 0), TIME, _clip(6, 1), _frames([True] + 5 * [False]))

    spread = path.spread[0, 0, :, 0, 0]
    assert spread.diff().min() > 0
    assert path.t[0, 0, :, 0, 0].diff().max() < 0


def test_nearness_falls_with_the_distance_and_tells_the_noise_of_the_context():
    clean = nearness(_frames([True, False, False, True]))
    noisy = nearness(_frames([True, False, False, True], noise=0.5))

    below, above = clean[0, :, :6].unflatten(1, (2, 3)).unbind(1)
    assert (below[:3].diff(dim=0) < 0).all()
    assert torch.equal(above, below.flip(0))
    assert clean[0, :, 6:].abs().max() == 0
    torch.testing.assert_close(noisy[..., 6:], clean[..., :6] / 2)
