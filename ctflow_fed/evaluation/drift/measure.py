"""Drawn volumes against real ones at the same pixels and slice distance."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ctflow_fed.errors import SettingsError
from ctflow_fed.evaluation.drift.checks import Profile, checks_of, ending_checks
from ctflow_fed.evaluation.drift.order import order_figure
from ctflow_fed.evaluation.drift.profile import BLOCKS, alike, profile_of
from ctflow_fed.evaluation.features import FeatureCache
from ctflow_fed.evaluation.figure import Evaluation, Figure, not_measured
from ctflow_fed.evaluation.halves import LEAST_PATIENTS, draw_halves
from ctflow_fed.evaluation.measuring import measure_each
from ctflow_fed.evaluation.scans import Scan

__all__ = ["Drawn", "measure_drift"]

COARSER = 1.25
"""How much farther apart real slices may lie and still be compared as neighbours."""


@dataclass(frozen=True)
class Drawn:
    """Volumes that were drawn in one way.

    Args:
        part: What to call them, as in ``128 full-body``; may be empty.
        scans: The files; none where ``reason`` says why.
        asked: The slices that were asked for, if that is known.
        reason: Why there are none.
        organs: Maps of the organs in them, if there are any.
    """

    part: str
    scans: Sequence[Scan]
    asked: int | None = None
    reason: str = ""
    organs: Sequence[Scan] = ()


def measure_drift(
    real: Sequence[Scan],
    sets: Sequence[Drawn],
    cache: Path,
    *,
    organs: Sequence[Scan] = (),
    splits: int = 50,
    seed: int = 0,
) -> Evaluation:
    """Follow drawn volumes from below to above, beside real ones.

    ``organs`` are maps of organs of real volumes, be they those in ``real`` or others.
    A set that was drawn here and has fewer than four volumes is not measured. Raises
    ``SettingsError`` for a folder with fewer, ``VolumeError`` where some volumes cannot
    be read. What was measured of a volume stays in ``cache``.
    """
    kept = FeatureCache(cache)
    figures: list[Figure] = []
    for each in tqdm(sets, desc="drift", unit="set", disable=None):
        figures += _figures(real, organs, each, kept, splits, seed)
    made: dict[str, object] = {
        "real": len(real),
        "sets": {each.part or "folder": len(each.scans) for each in sets},
        "splits": splits,
        "seed": seed,
    }
    return Evaluation("drift", figures, made)


def _figures(
    real: Sequence[Scan],
    organs: Sequence[Scan],
    drawn: Drawn,
    cache: FeatureCache,
    splits: int,
    seed: int,
) -> list[Figure]:
    if drawn.asked is not None and len(drawn.scans) < LEAST_PATIENTS:
        reason = drawn.reason or f"fewer than {LEAST_PATIENTS} volumes could be drawn"
        return [not_measured("kid_slope", drawn.part, "see the others", reason)]
    ours = _profiles(drawn.scans, cache, told=f"drawn {drawn.part}".strip())
    _refuse_short(ours)
    slice_mm = float(np.median([profile["slice_mm"] for profile in ours]))
    size = int(np.median([profile["size"] for profile in ours]))
    theirs = _profiles(real, cache, like=(slice_mm, size), told="real")
    _refuse_short(theirs)
    halves = draw_halves(
        [scan.patient for scan in real],
        [scan.patient for scan in drawn.scans],
        splits=splits,
        seed=seed,
    )
    real_mm = float(np.median([profile["slice_mm"] for profile in theirs]))
    comparable = real_mm <= COARSER * slice_mm
    return [
        *checks_of(ours, theirs, halves, part=drawn.part, comparable=comparable),
        order_figure(drawn.organs, organs, drawn.part, cache),
        *ending_checks(ours, drawn.part, drawn.asked),
    ]


def _profiles(
    scans: Sequence[Scan],
    cache: FeatureCache,
    *,
    told: str,
    like: tuple[float, int] | None = None,
) -> list[Profile]:
    rows = measure_each(
        scans,
        lambda volume: profile_of(alike(volume, *like) if like else volume),
        cache,
        ["profile", 1, list(like or ())],
        told=told,
    )
    return [{name: value.numpy() for name, value in row.items()} for row in rows]


def _refuse_short(profiles: Sequence[Profile]) -> None:
    shortest = min((len(profile["mean"]) for profile in profiles), default=0)
    if shortest < BLOCKS:
        raise SettingsError(
            f"expected volumes of {BLOCKS} slices or more, got one of {shortest} (at "
            "the distance of drawn slices, without copies at its end); remove it"
        )
