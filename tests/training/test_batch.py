from pathlib import Path

import torch

from ctflow_fed.ct.store import LatentStore
from ctflow_fed.training.batch import draw_batch, read_batch, with_fewer_sentences


def test_a_first_clip_has_a_black_context(haar_store: Path):
    store = LatentStore.open(haar_store)
    batch = read_batch(store, [(store.records[0], 0)])

    black = store.edges[0]
    assert torch.equal(batch.context, black[None, :, None].expand_as(batch.context))
    expected = store.slices(store.records[0].study_id, 0, 16).transpose(0, 1)
    assert torch.equal(batch.data[0], expected)


def test_a_clip_beyond_the_end_goes_on_in_white(haar_store: Path):
    store = LatentStore.open(haar_store)
    record = next(each for each in store.records if each.slices == 20)

    batch = read_batch(store, [(record, 16)])

    white = store.edges[1]
    inside = store.slices(record.study_id, 16, 20).transpose(0, 1)
    assert torch.equal(batch.data[0, :, :4], inside)
    assert torch.equal(batch.data[0, :, 4:], white[:, None].expand(-1, 12, -1, -1))
    assert (batch.geometry[0, :4, 1] <= 1).all()
    assert (batch.geometry[0, 4:, 1] > 1).all()


def test_a_context_is_the_clip_below(haar_store: Path):
    store = LatentStore.open(haar_store)
    record = next(each for each in store.records if each.slices == 40)

    batch = read_batch(store, [(record, 21)])

    expected = store.slices(record.study_id, 5, 21).transpose(0, 1)
    assert torch.equal(batch.context[0], expected)


def test_start_boost_is_the_share_of_first_clips(haar_store: Path):
    store = LatentStore.open(haar_store)

    def first_clips(boost: float) -> float:
        generator = torch.Generator().manual_seed(0)
        batch = draw_batch(store, 200, boost, generator)
        return (batch.geometry[:, 0, 0] == 0).float().mean().item()

    assert first_clips(1.0) == 1.0
    assert 0.4 < first_clips(0.5) < 0.65
    assert first_clips(0.0) < 0.2


def test_padding_of_shorter_reports_is_masked(haar_store: Path):
    store = LatentStore.open(haar_store)
    batch = draw_batch(store, 8, 0.5, torch.Generator().manual_seed(0))

    assert batch.report.shape[:2] == batch.report_mask.shape
    assert (batch.report[~batch.report_mask] == 0).all()


def test_a_share_of_the_clips_keeps_some_sentences_of_its_report(haar_store: Path):
    store = LatentStore.open(haar_store)
    generator = torch.Generator().manual_seed(0)
    batch = draw_batch(store, 200, 0.5, generator)

    whole = with_fewer_sentences(batch, 0.0, generator)
    fewer = with_fewer_sentences(batch, 0.5, generator)

    before, after = batch.report_mask.sum(1), fewer.report_mask.sum(1)
    assert torch.equal(whole.report_mask, batch.report_mask)
    assert not (fewer.report_mask & ~batch.report_mask).any()
    assert (after >= 1).all()
    assert 0.1 < (after < before).float().mean() < 0.4  # of half, with two sentences
