from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ctflow_fed.clips import CLIP_SLICES, Span, clip_geometry
from ctflow_fed.ct.store import LatentStore, StudyRecord
from ctflow_fed.model import FMvTConfig, fresh_network
from ctflow_fed.training import TrainSettings
from ctflow_fed.training.batch import (
    Place,
    draw_known,
    draw_previous,
    fewer_sentences,
    known_clips,
    previous_clips,
)
from ctflow_fed.training.step import batch_loss

NO_NOISE = torch.zeros(1)


@pytest.fixture
def store(haar_store: Path) -> LatentStore:
    return LatentStore.open(haar_store)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _study(store: LatentStore, slices: int) -> StudyRecord:
    return next(each for each in store.records if each.slices == slices)


def _row(first: int, stride: int = 1) -> tuple[int, ...]:
    return tuple(range(first, first + CLIP_SLICES * stride, stride))


def _known(*frames: int) -> torch.Tensor:
    known = torch.zeros(1, CLIP_SLICES, dtype=torch.bool)
    known[0, list(frames)] = True
    return known


# The paper's clips.


def _previous(store: LatentStore, slices: int, first: int):
    place = Place(_study(store, slices), _row(first))
    return previous_clips(store, [place], NO_NOISE, _generator())


def test_a_first_clip_of_the_paper_has_a_black_context(store: LatentStore):
    batch = _previous(store, slices=20, first=0)

    context = batch.conditions.context
    assert torch.equal(context, store.edges[0][None, :, None].expand_as(context))
    expected = store.slices(_study(store, 20).study_id, 0, 16).transpose(0, 1)
    assert torch.equal(batch.data[0], expected)


def test_a_clip_of_the_paper_has_the_clip_below_as_its_context(store: LatentStore):
    batch = _previous(store, slices=40, first=21)

    expected = store.slices(_study(store, 40).study_id, 5, 21).transpose(0, 1)
    assert torch.equal(batch.conditions.context[0], expected)


def test_a_context_that_begins_below_the_volume_begins_in_black(store: LatentStore):
    batch = _previous(store, slices=40, first=5)

    context = batch.conditions.context[0]
    inside = store.slices(_study(store, 40).study_id, 0, 5).transpose(0, 1)
    black = store.edges[0][:, None].expand(-1, 11, -1, -1)
    assert torch.equal(context, torch.cat([black, inside], dim=1))


@pytest.mark.parametrize("first", [16, 20, 36])
def test_above_the_volume_the_clips_of_the_paper_are_white(
    store: LatentStore, first: int
):
    batch = _previous(store, slices=20, first=first)

    left = max(0, 20 - first)
    white = store.edges[1][:, None].expand(-1, 16 - left, -1, -1)
    assert torch.equal(batch.data[0, :, left:], white)


def test_the_network_of_the_paper_is_told_nothing_of_ours_and_scored_everywhere(
    store: LatentStore,
):
    batch = draw_previous(store, TrainSettings.ctflow(), _generator())

    assert batch.conditions.frames is None
    assert batch.scored.all()
    assert len(batch.data) == TrainSettings.ctflow().batch_clips


@pytest.mark.parametrize(("boost", "low", "high"), [(1, 1, 1), (0.5, 0.4, 0.65)])
def test_start_boost_is_the_share_of_first_clips(
    store: LatentStore, boost: float, low: float, high: float
):
    settings = TrainSettings.ctflow(
        batch_clips=200, start_boost=boost, context_noise=0.0
    )
    context = draw_previous(store, settings, _generator()).conditions.context

    black = store.edges[0][None, :, None]
    first = (context == black).flatten(1).all(1).float().mean().item()
    assert low <= first <= high


def test_the_paper_tells_whole_reports(store: LatentStore):
    mask = draw_previous(store, TrainSettings.ctflow(), _generator()).conditions

    assert (mask.report_mask.sum(1) == 2).all()


# Our clips.


def test_known_slices_are_in_place_and_the_others_lie_between_them(store: LatentStore):
    record, clip = _study(store, 40), _row(3, stride=2)
    known = _known(2, 6)
    batch = known_clips(store, [Place(record, clip)], known, NO_NOISE, _generator())

    context, data = batch.conditions.context[0], batch.data[0]
    expected = store.slices(record.study_id, 3, 34)[::2].transpose(0, 1)
    assert torch.equal(data, expected)
    assert torch.equal(context[:, known[0]], data[:, known[0]])
    assert torch.allclose(context[:, 4], (data[:, 2] + data[:, 6]) / 2, atol=1e-5)
    assert torch.equal(context[:, 0], data[:, 2])
    assert torch.equal(context[:, 15], data[:, 6])


def test_a_clip_of_which_nothing_is_known_has_a_black_context(store: LatentStore):
    place = Place(_study(store, 40), _row(0))
    batch = known_clips(store, [place], _known(), NO_NOISE, _generator())

    context = batch.conditions.context
    assert torch.equal(context, store.edges[0][None, :, None].expand_as(context))


def test_what_is_known_is_told_and_never_scored(store: LatentStore):
    settings = TrainSettings(batch_clips=64, max_frames=16)
    batch = draw_known(store, settings, _generator())

    assert torch.equal(batch.scored, ~batch.conditions.frames.known)
    assert batch.scored.any(1).all()
    assert 0.15 < batch.conditions.frames.known.any(1).float().mean() < 0.45


def test_slices_are_known_evenly_or_in_a_run_or_both(store: LatentStore):
    settings = TrainSettings(batch_clips=2000, max_frames=16)
    frames = draw_known(store, settings, _generator()).conditions.frames
    inside = frames.geometry[:, :, 1] <= 1
    known = frames.known[inside.all(1) & frames.known.any(1)]

    assert not (frames.known & ~inside).any()  # what lies beyond the end is white
    assert not frames.known.all(1).any()  # something is left to be drawn
    kinds = {_pattern(row) for row in known.tolist()}
    assert {"even", "below", "above", "inside", "even and run"} <= kinds
    assert None not in kinds


def _pattern(row: list[bool]) -> str | None:
    """Name a pattern of known slices; None is one that should not be there."""
    places = {place for place, known in enumerate(row) if known}
    if len(places) >= len(row) - 3:
        return "nearly all"
    for by in (2, 3, 4):
        even = set(range(0, len(row), by))
        rest = places - even
        if even <= places and set(
            range(min(rest, default=0), max(rest, default=0))
        ) <= (places):
            return "even and run" if rest else "even"
    if places != set(range(min(places), max(places) + 1)):
        return None
    return "below" if row[0] else "above" if row[-1] else "inside"


def test_the_context_is_mixed_with_the_noise_that_is_told(store: LatentStore):
    places = [Place(_study(store, 40), _row(0))] * 2
    level = torch.tensor([0.0, 0.5])
    batch = known_clips(store, places, _known(0, 8).expand(2, -1), level, _generator())

    clean, noisy = batch.conditions.context
    noise = (noisy - 0.5 * clean) / 0.5
    assert torch.equal(batch.conditions.frames.noise_level, level)
    assert noise.mean().abs() < 0.05
    assert noise.std() == pytest.approx(1, abs=0.05)


def test_the_noise_of_contexts_is_absent_from_half_and_at_most_what_is_set(
    store: LatentStore,
):
    settings = TrainSettings(batch_clips=200, max_frames=16, context_noise=0.4)
    level = draw_known(store, settings, _generator()).conditions.frames.noise_level

    assert 0.4 < (level == 0).float().mean() < 0.6
    assert 0.3 < level.max() <= 0.4


def test_a_place_is_told_where_its_slices_lie(store: LatentStore):
    record = _study(store, 40)

    geometry = Place(record, _row(4, stride=2)).geometry()

    assert torch.equal(geometry, clip_geometry(_row(4, stride=2), Span(40, 5.0)))


def test_a_thinned_place_is_that_of_a_coarser_volume(store: LatentStore):
    record, clip = _study(store, 40), (5, 7, 9, 11)

    geometry = Place(record, clip, thinned=2).geometry()

    # Every second slice from 1 on: 20 of them, and slice 5 is the third.
    assert torch.equal(geometry, clip_geometry((2, 3, 4, 5), Span(20, 2 * 5.0)))


def test_a_refined_place_is_that_of_a_finer_volume(store: LatentStore):
    record, clip = _study(store, 40), _row(4)

    geometry = Place(record, clip, refined=3).geometry()

    expected = clip_geometry([index * 3 for index in clip], Span(118, 5.0 / 3))
    assert torch.allclose(geometry, expected)
    plain = Place(record, clip).geometry()
    assert torch.allclose(geometry[..., :2], plain[..., :2])  # the same places


def test_clips_are_of_every_length_and_a_step_is_of_one(store: LatentStore):
    settings = TrainSettings(batch_clips=8, max_frames=64)
    shapes = {
        tuple(draw_known(store, settings, torch.Generator().manual_seed(n)).data.shape)
        for n in range(80)
    }

    # The longest volume has 40 slices, and is drawn whole.
    lengths = {(8, 16), (8 * 16 // 32, 32), (8 * 16 // 40, 40)}
    inside = {(clips, frames - 2) for clips, frames in lengths}  # paired otherwise
    assert {(each[0], each[2]) for each in shapes} == lengths | inside


def test_long_clips_come_from_volumes_that_fill_them(store: LatentStore):
    settings = TrainSettings(batch_clips=64, max_frames=32)
    batches = [
        draw_known(store, settings, torch.Generator().manual_seed(n)) for n in range(8)
    ]

    long = [each for each in batches if each.data.shape[2] == 32]
    geometry = torch.cat([each.conditions.frames.geometry[:, 0] for each in long])
    heights = geometry[:, 2] * geometry[:, 3] * 256  # in slices, thinned or not
    # A refined volume of n slices has no slices above its highest one.
    assert heights.round().unique().tolist() == [31.0, 32.0, 39.0, 40.0]


def test_reports_lose_sentences_and_some_all_of_them(store: LatentStore):
    settings = TrainSettings(batch_clips=300, max_frames=16, report_dropout=0.2)
    told = draw_known(store, settings, _generator()).conditions.report_mask.sum(1)

    assert (told == 0).float().mean() == pytest.approx(0.2, abs=0.08)
    assert (told == 1).any()
    assert (told == 2).any()


def test_without_dropout_reports_are_whole(store: LatentStore):
    settings = TrainSettings(report_dropout=0.0, sentence_dropout=0.0)
    told = draw_known(store, settings, _generator()).conditions.report_mask

    assert (told.sum(1) == 2).all()


def test_a_share_of_the_reports_keeps_some_of_its_sentences():
    mask = torch.arange(6) < torch.tensor([[6]] * 200 + [[2]] * 200)

    whole = fewer_sentences(mask, 0.0, _generator())
    fewer = fewer_sentences(mask, 0.5, _generator())

    assert torch.equal(whole, mask)
    assert not (fewer & ~mask).any()
    assert (fewer.sum(1) >= 1).all()
    changed = (fewer.sum(1) < mask.sum(1)).float()
    assert 0.35 < changed[:200].mean() < 0.55
    assert fewer[:200].any(0).all()  # each place of a sentence is kept at times


def test_padding_of_shorter_reports_is_masked(store: LatentStore):
    told = draw_known(store, TrainSettings(), _generator()).conditions

    assert told.report.shape[:2] == told.report_mask.shape
    assert (told.report[~told.report_mask.any(1)].abs().sum((1, 2)) > 0).all()


def test_the_same_generator_draws_the_same_batch(store: LatentStore):
    first, second = (draw_known(store, TrainSettings(), _generator()) for _ in range(2))

    assert torch.equal(first.data, second.data)
    assert torch.equal(first.conditions.context, second.conditions.context)


# The loss of a batch.


def _loss(batch, weights: torch.Tensor) -> torch.Tensor:
    network = fresh_network(FMvTConfig(layers=1, features=32, heads=2), seed=0)
    with torch.no_grad():
        return batch_loss(network, batch, weights, TrainSettings(), _generator())


def test_channels_that_weigh_nothing_do_not_matter(store: LatentStore):
    place = Place(_study(store, 40), _row(0))
    batch = known_clips(store, [place], _known(0, 8), NO_NOISE, _generator())
    weights = torch.ones(16)
    weights[3] = 1e-9
    spoilt = batch.data.clone()
    spoilt[:, 3] += 100.0

    assert torch.allclose(
        _loss(batch, weights), _loss(replace(batch, data=spoilt), weights), rtol=1e-3
    )
    assert _loss(replace(batch, data=spoilt), torch.ones(16)) > 2 * _loss(
        batch, torch.ones(16)
    )


def test_frames_that_are_known_do_not_matter_to_the_loss(store: LatentStore):
    place = Place(_study(store, 40), _row(0))
    batch = known_clips(store, [place], _known(0, 1), NO_NOISE, _generator())
    spoilt = batch.data.clone()
    spoilt[:, :, :2] += 100.0

    # A fresh network looks at each patch alone.
    weights = torch.ones(16)
    assert torch.allclose(
        _loss(batch, weights), _loss(replace(batch, data=spoilt), weights)
    )
