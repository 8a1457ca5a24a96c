"""A batch of clips from a store: those of the paper, and ours with known slices."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn.utils.rnn import pad_sequence

from ctflow_fed.clips import CLIP_SLICES, Span, clip_geometry, interpolated
from ctflow_fed.ct.store import LatentStore, StudyRecord
from ctflow_fed.model import Conditions, FrameConditions
from ctflow_fed.shapes import Clip, Geometry, Known, Latents, TokenMask, Tokens
from ctflow_fed.training.settings import TrainSettings

__all__ = [
    "DRAWS",
    "ClipBatch",
    "Place",
    "draw_known",
    "draw_previous",
    "fewer_sentences",
    "known_clips",
    "previous_clips",
]

WHOLE_SHARE = 0.7
"""Of our clips, the share that reach over as much of their volume as they can."""

KNOWN_IN_WHOLE, KNOWN_IN_PART = 0.2, 0.8
"""Of our clips that reach over their whole volume, and of those that do not, the shares
in which some slices are known: a plan draws whole volumes first and then what lies
between the slices that it knows."""

INSIDE_SHARE = 0.25
"""Of our steps, the share without the first and the last slice of every clip: sampling
pairs slices that way too (see `ctflow_fed.sampling.clips`)."""

THINNED_SHARE = 0.4
REFINED_SHARE = 0.3
"""Of our clips, the shares that are told as parts of a coarser or of a finer volume."""

MOST_TOLD = 2048
"""The most slices that a volume may be told to have; no more can be asked for."""


class Place(NamedTuple):
    """A study and the indices of the slices of a clip in it, evenly spaced.

    Slices beyond the end are white. The network may be told of them as of slices of a
    coarser volume, the study ``thinned`` to one of every so many slices from the lowest
    on that the clip could have, or as of a finer one, ``refined`` by slices between. So
    it learns volumes of more and of fewer slices than any study has.
    """

    record: StudyRecord
    clip: tuple[int, ...]
    thinned: int = 1
    refined: int = 1

    @property
    def is_whole(self) -> bool:
        """Tell whether the clip reaches over the whole study."""
        stride = self.clip[1] - self.clip[0]
        return self.clip[0] < stride and self.record.slices - self.clip[-1] <= stride

    def geometry(self) -> Geometry:
        """Return where the slices of the clip lie in the volume."""
        (first, *_), by, finer = self.clip, self.thinned, self.refined
        lowest = first % by
        slices = -(-(self.record.slices - lowest) // by)
        clip = [(index - lowest) // by * finer for index in self.clip]
        spacing = self.record.spacing[0] * by / finer
        return clip_geometry(clip, Span((slices - 1) * finer + 1, spacing))


@dataclass(frozen=True)
class ClipBatch:
    """Clips, what the network is told about them, and which frames the loss looks at.

    The loss does not look at frames that the network is given.
    """

    data: Clip
    conditions: Conditions
    scored: Known

    def inside(self) -> "ClipBatch":
        """Return the same clips without their first and last frame."""
        conditions = self.conditions.inside()
        return ClipBatch(self.data[:, :, 1:-1], conditions, self.scored[:, 1:-1])

    def to(self, device: torch.device) -> "ClipBatch":
        """Return the batch on a device."""
        return ClipBatch(
            self.data.to(device), self.conditions.to(device), self.scored.to(device)
        )


def draw_previous(
    store: LatentStore, settings: TrainSettings, generator: Generator
) -> ClipBatch:
    """Draw clips as CTFlow does: any clip of a volume, half of them the first.

    A clip begins at any slice, or above the last one, where all is white.
    """
    places = []
    for record in _studies(store.records, settings.batch_clips, generator):
        boosted, where = torch.rand(2, generator=generator).tolist()
        first = (
            0 if boosted < settings.start_boost else int(where * (record.slices + 1))
        )
        places.append(Place(record, tuple(range(first, first + CLIP_SLICES))))
    noise = torch.full((len(places),), settings.context_noise)
    return previous_clips(store, places, noise, generator)


def draw_known(
    store: LatentStore, settings: TrainSettings, generator: Generator
) -> ClipBatch:
    """Draw clips of one length, each a row of evenly spaced slices of a study.

    Short clips are drawn more often than long ones, and most clips reach over as much
    of their volume as they can: a step sees more patients so, and a report speaks of a
    whole patient. In some, slices are known: every second to fourth of them, a run of
    them, or both. Reports lose sentences, some all.
    """
    frames = _frames(store, settings.max_frames, generator)
    long = [record for record in store.records if record.slices >= frames - 1]
    count = max(1, settings.batch_clips * CLIP_SLICES // frames)
    records = _studies(long or store.records, count, generator)
    places = [_row(each, frames, generator) for each in records]
    known = torch.stack([_pattern(place, generator) for place in places])
    level = torch.rand(2, count, generator=generator)
    noise = torch.where(level[0] < 0.5, level[1] * settings.context_noise, 0.0)
    batch = known_clips(store, places, known, noise, generator)
    mask = fewer_sentences(
        batch.conditions.report_mask, settings.sentence_dropout, generator
    )
    silent = torch.rand(count, 1, generator=generator) < settings.report_dropout
    conditions = replace(batch.conditions, report_mask=mask & ~silent)
    batch = replace(batch, conditions=conditions)
    otherwise = float(torch.rand(1, generator=generator)) < INSIDE_SHARE
    return batch.inside() if otherwise else batch


Draw = Callable[[LatentStore, TrainSettings, Generator], ClipBatch]

DRAWS: Mapping[str, Draw] = {"ctflow": draw_previous, "known": draw_known}
"""How a method of training draws its clips."""


def previous_clips(
    store: LatentStore,
    places: Sequence[Place],
    noise_level: Tensor,
    generator: Generator,
) -> ClipBatch:
    """Read clips, each with the 16 slices below it as its context."""
    context = torch.stack(
        [
            _frames_at(store, each.record, [i - CLIP_SLICES for i in each.clip])
            for each in places
        ]
    )
    blurred = _blurred(context.transpose(1, 2), noise_level, generator)
    report, mask = _reports(store, places)
    data = torch.stack(
        [_frames_at(store, each.record, each.clip) for each in places]
    ).transpose(1, 2)
    return ClipBatch(
        data,
        Conditions(blurred, report, mask),
        torch.ones(len(places), data.shape[2], dtype=torch.bool),
    )


def known_clips(
    store: LatentStore,
    places: Sequence[Place],
    known: Known,
    noise_level: Tensor,
    generator: Generator,
) -> ClipBatch:
    """Read clips whose context is those of their own slices that are known."""
    frames = [_frames_at(store, each.record, each.clip) for each in places]
    black = store.edges[:1]
    context = [
        interpolated(each, place.clip, row, black)
        for each, place, row in zip(frames, places, known, strict=True)
    ]
    blurred = _blurred(torch.stack(context).transpose(1, 2), noise_level, generator)
    geometry = torch.cat([each.geometry() for each in places])
    report, mask = _reports(store, places)
    extensions = FrameConditions.of(geometry, known, noise_level)
    data = torch.stack(frames).transpose(1, 2)
    return ClipBatch(data, Conditions(blurred, report, mask, extensions), ~known)


def fewer_sentences(mask: TokenMask, share: float, generator: Generator) -> TokenMask:
    """Hide sentences from a ``share`` of the reports: often most of them, never all.

    The sentences that are left are those whose random rank is below a random count; its
    square law makes one or two sentences as common as half a report.
    """
    rank = torch.rand(mask.shape, generator=generator)
    rank = rank.masked_fill(~mask, 2.0).argsort(1).argsort(1)
    kept = torch.rand(len(mask), generator=generator).square() * mask.sum(1)
    chosen = torch.rand(len(mask), generator=generator) < share
    return torch.where(chosen[:, None], mask & (rank <= kept[:, None]), mask)


def _studies(
    records: Sequence[StudyRecord], count: int, generator: Generator
) -> list[StudyRecord]:
    chosen = torch.randint(len(records), (count,), generator=generator)
    return [records[int(index)] for index in chosen]


def _frames(store: LatentStore, most: int, generator: Generator) -> int:
    """Draw the length of this step's clips, of those that some volume fills."""
    longest = max(CLIP_SLICES, max(record.slices for record in store.records) + 1)
    whole = min(most, longest) // 2 * 2
    lengths = torch.tensor([*range(CLIP_SLICES, whole, CLIP_SLICES), whole])
    return int(lengths[torch.multinomial(lengths**-1.5, 1, generator=generator)])


def _row(record: StudyRecord, frames: int, generator: Generator) -> Place:
    """Draw evenly spaced slices: a stride, the place of the lowest, how it is told."""
    slices, whole = record.slices, -(-record.slices // frames)
    reach, draw, place, told, finer = torch.rand(5, generator=generator).tolist()
    # Most slices of a volume are drawn close to known ones: small strides are common.
    stride = whole if reach < WHOLE_SHARE else 1 + int(draw**2 * whole)
    first = int(place * (max(0, slices - frames * stride) + 1))
    clip = tuple(range(first, first + frames * stride, stride))
    if told < THINNED_SHARE:
        return Place(record, clip, thinned=stride)
    if told < THINNED_SHARE + REFINED_SHARE:
        most = max(1, MOST_TOLD // slices)
        return Place(record, clip, refined=min(most, 2 + int(3 * finer)))
    return Place(record, clip)


def _pattern(place: Place, generator: Generator) -> Tensor:
    """Draw which frames of a clip are known; those beyond the volume never are."""
    frames = len(place.clip)
    share = KNOWN_IN_WHOLE if place.is_whole else KNOWN_IN_PART
    kind, step, size, where = torch.rand(4, generator=generator).tolist()
    known = torch.zeros(frames, dtype=torch.bool)
    if kind < share * 2 / 3:
        known[:: 2 + int(3 * step)] = True
    if share / 3 < kind < share:
        count = 1 + int(size * (frames - 1))
        # Half of the runs reach an end of the clip.
        first = round(min(max(2 * where - 0.5, 0), 1) * (frames - count))
        known[first : first + count] = True
    inside = torch.tensor(place.clip) < place.record.slices
    known &= inside
    last = int(inside.sum()) - 1
    if known[1:last].all():
        known[(last + 1) // 2] = False  # something is left to be drawn
    return known


def _blurred(context: Clip, noise_level: Tensor, generator: Generator) -> Clip:
    """Mix noise into contexts, so that those of sampling may be less than perfect."""
    noise = torch.randn(context.shape, generator=generator)
    return context.lerp(noise, noise_level[:, None, None, None, None])


def _reports(store: LatentStore, places: Sequence[Place]) -> tuple[Tokens, TokenMask]:
    tokens = [store.tokens(each.record.study_id) for each in places]
    report = pad_sequence(tokens, batch_first=True)
    lengths = torch.tensor([len(each) for each in tokens])
    return report, torch.arange(report.shape[1]) < lengths[:, None]


def _frames_at(store: LatentStore, record: StudyRecord, clip: Sequence[int]) -> Latents:
    """Read slices in rising order: black below the volume, white above it."""
    black, white = store.edges
    inside = [index for index in clip if 0 <= index < record.slices]
    below = sum(index < 0 for index in clip)
    above = len(clip) - below - len(inside)
    parts = [_repeated(black, below), _repeated(white, above)]
    if inside:
        stride = inside[1] - inside[0] if len(inside) > 1 else 1
        rows = store.slices(record.study_id, inside[0], inside[-1] + 1)
        parts.insert(1, rows[::stride])
    return torch.cat(parts)


def _repeated(frame: Tensor, count: int) -> Latents:
    return frame[None].expand(count, -1, -1, -1)
