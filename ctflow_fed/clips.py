"""Which slices are drawn together, from which known slices: the plans of a volume.

A **clip** is a set of slices that are drawn together; its **context** is what is known
about them. There are two kinds of context:

* that of the paper: the 16 slices below the clip, a black clip below the first one,
  and white slices above the volume, which end it;
* ours: the known slices among those of the clip itself, in their places, and between
  them what lies there by interpolation. Where nothing is known, it is black.

A **plan** is a sequence of levels, a level is a set of clips that do not depend on one
another, so that they are drawn as one batch. Nothing here knows a network.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ctflow_fed.errors import SettingsError
from ctflow_fed.shapes import Geometry, Known, KnownFrames, Latent, Latents, Nearest

__all__ = [
    "BLACK_HU",
    "CLIP_SLICES",
    "QUANTITIES",
    "WHITE_HU",
    "ClipPlan",
    "Level",
    "Span",
    "anchored",
    "autoregressive",
    "between",
    "clip_geometry",
    "extend",
    "interpolated",
    "nearest_mm",
    "written",
]

CLIP_SLICES = 16
"""Slices that the released network draws together."""

BLACK_HU = -1000.0
"""What lies below a volume."""

WHITE_HU = 1000.0
"""What lies above a volume."""

QUANTITIES = 4
"""Numbers that place a slice: height, fraction, slice spacing, number of slices."""

HEIGHT_MM = 300.0
"""The unit of heights: that of a chest."""

LARGEST_STEP = 4
"""How many times finer a level may be than the one before it."""

Clip = tuple[int, ...]
"""The indices of the slices of a clip, an even number; those beyond the end of the
volume are drawn and dropped."""

Level = tuple[Clip, ...]
"""Clips that do not depend on one another; a slice in two is that of the later."""


@dataclass(frozen=True)
class Span:
    """A volume to be: how many slices it has and how far apart they are.

    Raises `SettingsError` for a number or a distance that no volume has.
    """

    slices: int
    spacing_mm: float

    def __post_init__(self) -> None:
        if not 1 <= self.slices <= 4096:
            raise SettingsError(
                f"a volume has 1 to 4096 slices, got {self.slices}; choose fewer, or "
                "draw it in parts"
            )
        if not 0.01 <= self.spacing_mm <= 1000:
            raise SettingsError("the slice spacing must lie between 0.01 and 1000 mm")


@dataclass(frozen=True)
class ClipPlan:
    """The order in which a volume of ``slices`` slices is drawn.

    ``given`` are the slices that are known before the first level. Together with them
    the clips hold every slice of the volume.
    """

    slices: int
    levels: tuple[Level, ...]
    given: tuple[int, ...] = ()


def autoregressive(slices: int, frames: int, overlap: int) -> ClipPlan:
    """Draw clips of ``frames`` slices from below; each knows ``overlap`` of the last.

    The last clip ends with the volume and overlaps more. Unlike the paper's plan it
    needs no black start, no white end and has no seam between clips.
    """
    _check(frames, overlap)
    clip = min(frames, _even(slices))
    levels: list[Level] = []
    drawn = 0
    while drawn < slices:
        first = max(0, min(drawn - overlap, slices - clip))
        levels.append((tuple(range(first, first + clip)),))
        drawn = first + clip
    return ClipPlan(slices, tuple(levels))


def anchored(slices: int, frames: int) -> ClipPlan:
    """Draw at most ``frames`` slices over the whole volume, then those between them.

    A volume of at most ``frames`` slices is one clip. In a longer one, level 0 is every
    s-th slice and each further level is up to four times as fine; its clips lie
    between known slices and are one batch, so that nothing can drift.
    """
    _check(frames, 0)
    strides = [1]
    while -(-slices // strides[-1]) > frames:
        strides.append(strides[-1] * min(LARGEST_STEP, frames - 2))
    if len(strides) > 1 and -(-slices // (strides[-1] // 2)) <= frames:
        strides[-1] //= 2
    stride = strides.pop()
    levels: list[Level] = [(_padded(range(0, slices, stride), stride),)]
    for finer in reversed(strides):
        levels.append(_filled(slices, stride, finer, frames))
        stride = finer
    return ClipPlan(slices, tuple(levels))


def between(known: int, factor: int, frames: int) -> ClipPlan:
    """Draw ``factor - 1`` slices between each two of ``known`` given ones."""
    _check(frames, 0)
    if known < 2 or not 2 <= factor <= min(16, frames - 1):
        raise SettingsError(
            "slices are drawn between 2 or more known ones, at 2 to "
            f"{min(16, frames - 1)} times their number; got {known} and {factor}"
        )
    slices = (known - 1) * factor + 1
    levels, stride = [], factor
    while stride > 1:
        finer = stride // 4 if stride % 4 == 0 else stride // 2
        finer = finer if stride % 2 == 0 else 1
        levels.append(_filled(slices, stride, finer, frames))
        stride = finer
    return ClipPlan(slices, tuple(levels), tuple(range(0, slices, factor)))


def extend(known: int, below: int, above: int, frames: int) -> ClipPlan:
    """Draw ``below`` slices under and ``above`` slices over ``known`` given ones.

    The levels are those of `anchored`, so that what is drawn fits the whole volume and
    not only the slices next to it; clips that write nothing are left out. Where slices
    are drawn above alone, the highest given one is among those of level 0.
    """
    if known < 1 or min(below, above) < 0 or below + above < 1:
        raise SettingsError(
            "a volume of 1 or more slices is extended by 1 or more slices, "
            f"got {known} and {below} below, {above} above"
        )
    slices, given = below + known + above, tuple(range(below, below + known))
    clip = anchored(slices, frames).levels[0][0]
    first = 0 if below else (known - 1) % (clip[1] - clip[0])
    lacking, levels = set(range(slices)) - set(given), []
    for level in anchored(slices - first, frames).levels:
        clips = tuple(tuple(first + place for place in clip) for clip in level)
        own = zip(clips, written(clips, slices), strict=True)
        levels.append(tuple(clip for clip, places in own if lacking & {*places}))
        lacking = lacking.difference(*clips)
    return ClipPlan(slices, tuple(filter(None, levels)), given)


def written(level: Level, slices: int) -> list[Clip]:
    """Return the slices that each clip of a level writes: those below the next clip."""
    ends = [*(clip[0] for clip in level[1:]), slices]
    return [
        tuple(place for place in clip if place < end)
        for clip, end in zip(level, ends, strict=True)
    ]


def clip_geometry(clip: Sequence[int], span: Span) -> Geometry:
    """Place the slices of a clip in their volume.

    Returns ``[1, frames, 4]``: height above the lowest slice (in 300 mm), fraction of
    the way from the lowest to the highest slice, slice spacing (in 5 mm), number of
    slices (in 256); all of order one. Slices beyond the end have a fraction above one.
    """
    index = torch.tensor(clip, dtype=torch.float32)
    height = index * span.spacing_mm / HEIGHT_MM
    fraction = index / max(span.slices - 1, 1)
    spacing = torch.full_like(index, span.spacing_mm / 5)
    length = torch.full_like(index, span.slices / 256)
    return torch.stack([height, fraction, spacing, length], dim=-1)[None]


def nearest_mm(geometry: Geometry, known: Known) -> Nearest:
    """Return how far the nearest known frames of a clip are, below and above."""
    height = geometry[..., 0] * HEIGHT_MM
    below = torch.where(known, height, -torch.inf).cummax(1).values
    above = torch.where(known, -height, -torch.inf).flip(1).cummax(1).values.flip(1)
    return torch.stack([height - below, -above - height], dim=-1)


def interpolated(
    frames: Latents, clip: Sequence[int], known: KnownFrames, black: Latent
) -> Latents:
    """Return the context of a clip: known frames in place, the others from them.

    ``frames`` holds the latents of the clip; only those that are ``known`` are looked
    at. A frame between two known ones is their linear mixture by its place; one beyond
    them is the nearest; where none is known, all are ``black`` (one frame).
    """
    places = torch.tensor(clip, dtype=torch.float32)
    at = known.nonzero()[:, 0]
    if not len(at):
        return black.expand_as(frames)
    anchors = places[at]
    above = torch.searchsorted(anchors, places).clamp(max=len(at) - 1)
    below = (above - 1).clamp(min=0)
    gap = (anchors[above] - anchors[below]).clamp(min=1e-6)
    share = ((places - anchors[below]) / gap).clamp(0, 1)[:, None, None, None]
    return frames[at[below]].lerp(frames[at[above]], share.to(frames))


def _check(frames: int, overlap: int) -> None:
    if not 4 <= frames <= 1024 or frames % 2:
        raise SettingsError(
            f"a clip has 4 to 1024 slices, an even number; got {frames}"
        )
    if not 0 <= overlap < frames:
        raise SettingsError(
            f"clips of {frames} slices overlap in 0 to {frames - 1}, got {overlap}"
        )


def _filled(slices: int, stride: int, finer: int, frames: int) -> Level:
    """Cover every ``finer``-th slice by clips that begin at known ``stride``-th ones.

    A clip ends with the known slice that the next one begins with, so that every slice
    is drawn between two known ones (but for what lies above the last of them).
    """
    step = stride // finer
    whole = max(1, (frames - 1) // step)  # gaps between known slices in one clip
    clips = []
    for first in range(0, slices, whole * stride):
        last = min(first + whole * stride, slices - 1)
        clip = range(first, last + 1, finer)
        if len(clip) > 1:
            clips.append(_padded(clip, finer))
    return tuple(clips)


def _padded(clip: range, stride: int) -> Clip:
    """Return an even number of indices, one more than given if need be."""
    return tuple(clip) + ((clip[-1] + stride,) if len(clip) % 2 else ())


def _even(count: int) -> int:
    return count + count % 2
