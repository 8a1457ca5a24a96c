"""The plans of a volume: what they cover, and what each clip knows."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctflow_fed.clips import (
    ClipPlan,
    Span,
    anchored,
    autoregressive,
    between,
    clip_geometry,
    extend,
    interpolated,
    nearest_mm,
)
from ctflow_fed.errors import SettingsError

SLICES = st.integers(1, 300)
FRAMES = st.integers(2, 40).map(lambda half: 2 * half)
THOROUGH = settings(max_examples=100, deadline=None)


def _own(level) -> list[set[int]]:
    """Return the slices of each clip; one in two clips is that of the later."""
    own, later = [], set()
    for clip in reversed(level):
        own.append(set(clip) - later)
        later |= set(clip)
    return own[::-1]


def _known_before(plan: ClipPlan) -> list[set[int]]:
    """Return which slices are known when each level begins, and after the last."""
    known = [set(plan.given)]
    for level in plan.levels:
        inside = {each for clip in level for each in clip if each < plan.slices}
        known.append(known[-1] | inside)
    return known


def _check_whole(plan: ClipPlan, frames: int) -> None:
    """A plan ends with every slice; its clips are what the network can take."""
    assert _known_before(plan)[-1] == set(range(plan.slices))
    for level, known in zip(plan.levels, _known_before(plan), strict=False):
        for clip in level:
            steps = {b - a for a, b in pairwise(clip)}
            assert len(clip) % 2 == 0
            assert len(clip) <= frames
            assert clip[0] >= 0
            assert len(steps) == 1
            assert min(steps) > 0
            assert {each for each in clip if each < plan.slices} - known


def _check_enclosed(plan: ClipPlan, first_level: int) -> None:
    """Slices are drawn between two known ones of their clip, but for the tail."""
    levels = list(zip(plan.levels, _known_before(plan), strict=False))
    for level, known in levels[first_level:]:
        for clip, own in zip(level, _own(level), strict=True):
            there = [each for each in clip if each in known]
            for each in own - known:
                assert there[0] < each
                assert each < there[-1] or each > max(known)


@THOROUGH
@given(SLICES, FRAMES)
def test_anchored_clips_cover_the_volume_each_between_known_slices(slices, frames):
    plan = anchored(slices, frames)

    _check_whole(plan, frames)
    _check_enclosed(plan, first_level=1)
    assert plan.given == ()
    assert len(plan.levels[0]) == 1


@THOROUGH
@given(SLICES, FRAMES)
def test_clips_of_a_level_have_at_most_one_slice_more_than_they_draw(slices, frames):
    plan = anchored(slices, frames)

    for level in plan.levels[1:]:
        for index, clip in enumerate(level[:-1]):
            begins = level[index + 1][0]  # known, and the last that the clip needs
            assert [each for each in clip if each >= begins][:1] == [begins]
            assert sum(each > begins for each in clip) <= 1


def test_anchored_is_written_out_for_40_slices_in_clips_of_16():
    first, second = anchored(40, 16).levels

    # Every 4th slice is 10 of them; every 2nd would be 20.
    assert first == (tuple(range(0, 40, 4)),)
    assert second == (
        tuple(range(14)),
        tuple(range(12, 26)),
        tuple(range(24, 38)),
        tuple(range(36, 40)),
    )


def test_a_volume_that_one_clip_holds_is_one_clip():
    assert anchored(16, 16).levels == ((tuple(range(16)),),)
    assert anchored(15, 16).levels == ((tuple(range(16)),),)
    assert autoregressive(1, 16, 4).levels == (((0, 1),),)


@THOROUGH
@given(SLICES, FRAMES, st.data())
def test_autoregressive_clips_cover_the_volume_and_know_the_overlap(
    slices, frames, data
):
    overlap = data.draw(st.integers(0, frames - 1))
    plan = autoregressive(slices, frames, overlap)

    _check_whole(plan, frames)
    for level, known in list(zip(plan.levels, _known_before(plan), strict=False))[1:]:
        (clip,) = level
        assert len(known & set(clip)) >= overlap


def test_autoregressive_is_written_out_for_40_slices_in_clips_of_16():
    levels = autoregressive(40, 16, 4).levels

    assert [clip[0] for (clip,) in levels] == [0, 12, 24]


@THOROUGH
@given(st.integers(2, 120), st.integers(2, 16), FRAMES)
def test_between_draws_every_slice_between_two_known_ones(known, factor, frames):
    factor = min(factor, frames - 1)
    plan = between(known, factor, frames)

    _check_whole(plan, frames)
    _check_enclosed(plan, first_level=0)
    assert plan.slices == (known - 1) * factor + 1
    assert plan.given == tuple(range(0, plan.slices, factor))


@THOROUGH
@given(st.integers(1, 60), st.integers(0, 60), st.integers(0, 60), FRAMES)
def test_extend_covers_what_lies_below_and_above(known, below, above, frames):
    above = above or (not below)
    plan = extend(known, below, above, frames)

    _check_whole(plan, frames)
    assert plan.slices == below + known + above
    assert plan.given == tuple(range(below, below + known))
    for level, there in zip(plan.levels, _known_before(plan), strict=False):
        ends = [*(clip[0] for clip in level[1:]), plan.slices]
        for clip, end in zip(level, ends, strict=True):
            assert set(clip) & set(range(end)) - there  # it writes something


@pytest.mark.parametrize(("known", "above"), [(240, 60), (153, 16), (40, 56), (7, 290)])
def test_extend_upwards_sees_the_highest_given_slice_first(known, above):
    ((clip,), *_) = extend(known, 0, above, 64).levels

    assert known - 1 in clip


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: anchored(40, 15),
        lambda: anchored(40, 2),
        lambda: anchored(40, 2048),
        lambda: autoregressive(40, 16, 16),
        lambda: autoregressive(40, 16, -1),
        lambda: between(1, 2, 16),
        lambda: between(5, 1, 16),
        lambda: between(5, 17, 64),
        lambda: between(5, 8, 8),
        lambda: extend(0, 1, 1, 16),
        lambda: extend(5, 0, 0, 16),
        lambda: extend(5, -1, 3, 16),
        lambda: Span(0, 1.0),
        lambda: Span(5000, 1.0),
        lambda: Span(5, 0.0),
        lambda: Span(5, float("nan")),
    ],
)
def test_what_cannot_be_planned_is_refused(wrong):
    with pytest.raises(SettingsError):
        wrong()


def test_the_geometry_is_of_order_one_and_above_one_beyond_the_end():
    geometry = clip_geometry((0, 20, 40, 60), Span(slices=41, spacing_mm=2.5))

    expected = [
        [index * 2.5 / 300, index / 40, 2.5 / 5, 41 / 256] for index in (0, 20, 40, 60)
    ]
    assert geometry.shape == (1, 4, 4)
    assert torch.allclose(geometry[0], torch.tensor(expected))


def test_a_volume_of_one_slice_has_a_geometry():
    assert clip_geometry((0, 1), Span(1, 5.0))[0, :, 1].tolist() == [0.0, 1.0]


def _frames(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float)[:, None, None, None].expand(
        -1, 2, 3, 3
    )


def test_what_is_not_known_is_mixed_from_the_nearest_known_by_their_distance():
    frames = _frames(9.0, 1.0, 9.0, 9.0, 4.0, 9.0)  # 9 is never looked at
    known = torch.tensor([False, True, False, False, True, False])

    context = interpolated(frames, (0, 1, 2, 3, 4, 5), known, _frames(7.0))

    third = (4.0 - 1.0) / 3
    expected = _frames(1.0, 1.0, 1.0 + third, 1.0 + 2 * third, 4.0, 4.0)
    assert torch.allclose(context, expected)
    assert torch.equal(context[known], frames[known])


def test_distances_are_those_of_the_slices_and_not_of_the_frames():
    frames, known = _frames(0.0, 9.0, 8.0), torch.tensor([True, False, True])

    context = interpolated(frames, (10, 11, 18), known, _frames(7.0))

    assert torch.allclose(context, _frames(0.0, 8.0 * (11 - 10) / (18 - 10), 8.0))


def test_where_nothing_is_known_all_is_black():
    unknown = torch.zeros(4, dtype=torch.bool)

    context = interpolated(_frames(1, 2, 3, 4), (0, 1, 2, 3), unknown, _frames(7.0))

    assert torch.equal(context, _frames(7.0, 7.0, 7.0, 7.0))


def test_one_known_frame_is_the_context_of_all():
    known = torch.tensor([False, False, True, False])

    context = interpolated(_frames(1, 2, 3, 4), (0, 1, 2, 3), known, _frames(7.0))

    assert torch.equal(context, _frames(3.0, 3.0, 3.0, 3.0))


def test_the_nearest_known_frames_are_told_in_millimetres():
    geometry = clip_geometry((0, 2, 4, 6), Span(8, 2.5))
    known = torch.tensor([[False, True, False, False]])

    nearest = nearest_mm(geometry, known)

    inf = torch.inf
    expected = [[inf, 5.0], [0.0, 0.0], [5.0, inf], [10.0, inf]]
    torch.testing.assert_close(nearest[0], torch.tensor(expected))
