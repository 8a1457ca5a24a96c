"""A batch of clips from a store."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ctflow_fed.clips import CLIP_SLICES, clip_geometry
from ctflow_fed.ct.store import LatentStore, StudyRecord
from ctflow_fed.shapes import Clip, Geometry, Latents, TokenMask, Tokens

__all__ = ["ClipBatch", "draw_batch", "read_batch", "with_fewer_sentences"]


@dataclass(frozen=True)
class ClipBatch:
    """Clips, and what the network is told about them."""

    data: Clip
    context: Clip
    report: Tokens
    report_mask: TokenMask
    geometry: Geometry

    def to(self, device: torch.device) -> "ClipBatch":
        """Return the batch on a device."""
        return ClipBatch(
            *(
                value.to(device)
                for value in (
                    self.data,
                    self.context,
                    self.report,
                    self.report_mask,
                    self.geometry,
                )
            )
        )


def draw_batch(
    store: LatentStore, clips: int, start_boost: float, generator: torch.Generator
) -> ClipBatch:
    """Draw clips at random: a study, then a place in it.

    A share ``start_boost`` of the clips are the first of their volume; the others
    begin at any slice up to that of the last clip, so that what lies beyond the end of
    a volume is seen in training as it is met in sampling.
    """
    records = store.records
    chosen = torch.randint(len(records), (clips,), generator=generator)
    boosted = torch.rand(clips, generator=generator) < start_boost
    places = torch.rand(clips, generator=generator)
    pairs = []
    for index, first, place in zip(chosen, boosted, places, strict=True):
        record = records[int(index)]
        starts = (record.slices - 1) // CLIP_SLICES * CLIP_SLICES + 1
        pairs.append((record, 0 if first else int(place * starts)))
    return read_batch(store, pairs)


def read_batch(
    store: LatentStore, pairs: Sequence[tuple[StudyRecord, int]]
) -> ClipBatch:
    """Read the clips that begin at the given slices, each with the clip below it."""
    windows = torch.stack(
        [
            _window(store, record, start - CLIP_SLICES, start + CLIP_SLICES)
            for record, start in pairs
        ]
    ).transpose(1, 2)
    tokens = [store.tokens(record.study_id) for record, _ in pairs]
    lengths = torch.tensor([len(each) for each in tokens])
    report = pad_sequence(tokens, batch_first=True)
    geometry = [
        clip_geometry(start, record.slices, record.spacing[0])
        for record, start in pairs
    ]
    return ClipBatch(
        data=windows[:, :, CLIP_SLICES:],
        context=windows[:, :, :CLIP_SLICES],
        report=report,
        report_mask=torch.arange(report.shape[1]) < lengths[:, None],
        geometry=torch.cat(geometry),
    )


def with_fewer_sentences(
    batch: ClipBatch, share: float, generator: torch.Generator
) -> ClipBatch:
    """Hide sentences from a ``share`` of the clips: often most of them, never all.

    The sentences that a clip keeps are those whose random rank is below a random
    count; its square law makes one or two sentences as common as half a report.
    """
    mask = batch.report_mask
    rank = torch.rand(mask.shape, generator=generator)
    rank = rank.masked_fill(~mask, 2.0).argsort(1).argsort(1)
    kept = torch.rand(len(mask), generator=generator).square() * mask.sum(1)
    chosen = torch.rand(len(mask), generator=generator) < share
    fewer = mask & (rank <= kept[:, None])
    return replace(batch, report_mask=torch.where(chosen[:, None], fewer, mask))


def _window(store: LatentStore, record: StudyRecord, start: int, stop: int) -> Latents:
    """Read slices ``start`` to ``stop``: black below the volume, white above it."""
    black, white = store.edges
    inside = store.slices(record.study_id, max(start, 0), min(stop, record.slices))
    below = _repeated(black, max(0, -start))
    above = _repeated(white, max(0, stop - record.slices))
    return torch.cat([below, inside, above])


def _repeated(frame: Tensor, count: int) -> Latents:
    return frame[None].expand(count, -1, -1, -1)
