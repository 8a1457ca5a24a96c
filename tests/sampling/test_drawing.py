"""The latents of volumes, from plans that are written out."""

from dataclasses import replace

import pytest
import torch

from ctflow_fed.clips import ClipPlan, Span, clip_geometry
from ctflow_fed.ct.report import HashingReportEncoder
from ctflow_fed.model import (
    Conditions,
    FMvT,
    FMvTConfig,
    FrameConditions,
    fresh_network,
)
from ctflow_fed.sampling import SampleSettings
from ctflow_fed.sampling.clips import draw_clips
from ctflow_fed.sampling.drawing import Drawing, draw_volumes

SETTINGS = SampleSettings(steps=2, precision="float32")


@pytest.fixture(scope="module")
def network() -> FMvT:
    made = fresh_network(FMvTConfig(layers=1, features=32, heads=2), seed=0)
    generator = torch.Generator().manual_seed(1)
    for value in made.parameters():
        value.data += 0.05 * torch.randn(value.shape, generator=generator)
    return made.eval()


def _draw(
    network: FMvT,
    plan: ClipPlan,
    volumes: int = 1,
    settings: SampleSettings = SETTINGS,
) -> torch.Tensor:
    reports = HashingReportEncoder().encode(["A ball."] * volumes)
    spans = [Span(plan.slices, 5.0)] * volumes
    drawing = Drawing(reports, spans, range(volumes), torch.zeros(2, 16, 4, 4))
    given = None
    if plan.given:
        shape = (volumes, 16, len(plan.given), 4, 4)
        given = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    return draw_volumes(network, drawing, plan, settings, given)


def test_a_slice_in_two_clips_is_that_of_the_later(network: FMvT):
    longer = ClipPlan(4, (((0, 1, 2, 3), (2, 3)),), given=(0, 2))
    alone = ClipPlan(4, (((2, 3),),), given=(0, 2))

    both, later = _draw(network, longer), _draw(network, alone)

    assert torch.allclose(both[:, :, 3], later[:, :, 3], atol=1e-5)
    assert not torch.allclose(both[:, :, 1], later[:, :, 1], atol=1e-2)


def test_given_slices_are_never_drawn_again(network: FMvT):
    plan = ClipPlan(6, ((tuple(range(6)),),), given=(1, 4))

    volume = _draw(network, plan)

    given = torch.randn((1, 16, 2, 4, 4), generator=torch.Generator().manual_seed(2))
    assert torch.equal(volume[:, :, [1, 4]], given)


def test_slices_beyond_the_end_are_drawn_and_dropped(network: FMvT):
    plan = ClipPlan(3, (((0, 1, 2, 3),),))

    assert _draw(network, plan).shape == (1, 16, 3, 4, 4)


def test_a_later_level_sees_the_one_before(network: FMvT):
    first, second = ((0, 2, 4, 6),), ((0, 1, 2, 3, 4, 5, 6, 7),)

    apart = _draw(network, ClipPlan(8, (first, second)))
    coarse = _draw(network, ClipPlan(8, (first,)))

    assert torch.equal(apart[:, :, ::2], coarse[:, :, ::2])
    assert (coarse[:, :, 1::2] == 0).all()  # black: nobody drew them
    assert (apart[:, :, 1::2] != 0).any()


def test_volumes_of_other_seeds_are_others(network: FMvT):
    one, two = _draw(network, ClipPlan(4, (((0, 1, 2, 3),),)), volumes=2)

    assert not torch.allclose(one, two, atol=1e-2)


class _Pairs(FMvT):
    """A network whose velocity is the number of the pair that a frame is in."""

    def forward(self, noisy, timestep, conditions):
        pairs = torch.arange(noisy.shape[2]) // 2
        return pairs[:, None, None].expand_as(noisy).float()


def test_near_data_slices_are_paired_both_ways():
    network = _Pairs(FMvTConfig(layers=1, features=32, heads=2))
    noise = torch.zeros(1, 16, 8, 4, 4)
    frames = FrameConditions.of(
        clip_geometry(range(8), Span(8, 5.0)),
        torch.zeros(1, 8, dtype=torch.bool),
        torch.zeros(1),
    )
    report = HashingReportEncoder().encode(["A ball."])
    told = Conditions(noise, report.tokens, report.mask, frames)
    settings = SampleSettings(steps=4, solver="euler", time_shift=1.0)

    jumps = -draw_clips(network, noise, told, settings)[0, 0, :, 0, 0].diff()

    # Three steps have one pairing, the last has both: a half of a jump everywhere.
    assert jumps.tolist() == [0.0] + [0.875, 0.125] * 3


def test_what_is_known_has_no_say_in_the_guidance(network: FMvT):
    plan = ClipPlan(6, ((tuple(range(6)),),), given=(1, 4))
    guided = replace(SETTINGS, guidance=3.0, guided=(0.0, 1.0))

    class Loud(FMvT):
        """A network that is loud about known frames, whatever else it says."""

        def forward(self, noisy, timestep, conditions):
            known = conditions.frames.known[:, None, :, None, None]
            told = conditions.report_mask.any(1)[:, None, None, None, None]
            velocity = network(noisy, timestep, conditions)
            return torch.where(known, self.loudness * (1 + told), velocity)

    quiet, loud = Loud(network.config), Loud(network.config)
    quiet.loudness, loud.loudness = 0.0, 1000.0

    assert torch.allclose(
        _draw(quiet, plan, settings=guided), _draw(loud, plan, settings=guided)
    )
