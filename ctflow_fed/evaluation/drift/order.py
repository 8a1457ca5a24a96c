"""D7: do organs lie in the order in which they lie in real volumes?

A segmenter of the user's choice names the voxels of real and of drawn volumes by the
same numbers. Where the middle of one organ lies clearly above that of another in the
real volumes that show both, it shall do so in every drawn one. Left and right kidneys,
of which chance makes one the higher, are no such pair.
"""

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import torch
from jaxtyping import Float64, Int64

from ctflow_fed.ct.nifti import read_map
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.errors import VolumeError
from ctflow_fed.evaluation.features import FeatureCache, Measured
from ctflow_fed.evaluation.figure import Figure, not_measured
from ctflow_fed.evaluation.measuring import measure_each
from ctflow_fed.evaluation.scans import Scan
from ctflow_fed.evaluation.shares import share

__all__ = ["order_figure"]

MOST_ORGANS = 256
FEWEST = 5
"""Real volumes that must show two organs before anything is said of their order."""

CLEAR = 4.0
"""Standard deviations that their distance must have on average."""

CONVENTION = "no organ out of order"

Places = Int64[np.ndarray, " pairs"]

Heights = Float64[np.ndarray, "volumes organs"]
"""The middle of each organ in slices; nan where there is none."""


def order_figure(
    drawn: Sequence[Scan], real: Sequence[Scan], part: str, cache: FeatureCache
) -> Figure:
    """Hold the order of organs in maps of drawn volumes against that in real ones."""
    if not (drawn and real):
        reason = "no maps of organs of real and of drawn volumes are given"
        return not_measured("anatomy_order", part, CONVENTION, reason)
    ours = _heights(drawn, cache, f"organs {part}".strip())
    theirs = _heights(real, cache, "organs of real")
    above, below = _known_order(theirs)
    shown = np.isfinite(ours[:, above] - ours[:, below]).any(1)
    if not shown.any():
        reason = (
            f"no drawn volume shows two organs of clear order in {FEWEST} real ones"
        )
        return not_measured("anatomy_order", part, CONVENTION, reason)
    wrong = int((ours[:, above] < ours[:, below]).any(1).sum())
    return Figure(
        name="anatomy_order",
        part=part,
        n=int(shown.sum()),
        value=share(wrong, int(shown.sum())),
        convention=CONVENTION,
        verdict="fail" if wrong else "pass",
        method="volumes in which the middles of two organs lie the other way round "
        f"than in real ones, where they are {CLEAR:g} deviations apart; {len(above)} "
        f"pairs of organs; {int((~shown).sum())} volumes show none",
    )


def _known_order(heights: Heights) -> tuple[Places, Places]:
    """Return pairs of organs of which the first is always clearly above the second."""
    often = np.flatnonzero(np.isfinite(heights).sum(0) >= FEWEST)
    pairs = [
        (first, second)
        for first, second in permutations(often, 2)
        if _is_clear(heights[:, first] - heights[:, second])
    ]
    above, below = np.array(pairs, np.int64).reshape(-1, 2).T
    return above, below


def _is_clear(distances: Float64[np.ndarray, " volumes"]) -> bool:
    known = distances[np.isfinite(distances)]
    if len(known) < FEWEST or known.min() <= 0:
        return False
    return bool(known.mean() >= CLEAR * known.std(ddof=1))


def _heights(scans: Sequence[Scan], cache: FeatureCache, told: str) -> Heights:
    rows = measure_each(
        scans,
        _middles,
        cache,
        ["organs", 1],
        told=told,
        read=lambda scan: read_map(scan.path),
        expected=f"maps of organs by numbers below {MOST_ORGANS}",
    )
    return np.stack([row["heights"].numpy() for row in rows])


def _middles(organs: CTVolume) -> Measured:
    """Return the middle of each organ; 0 is none."""
    if not 0 <= organs.hu.min() <= organs.hu.max() < MOST_ORGANS:
        raise VolumeError("expected organs by other numbers")
    counts = np.stack(
        [np.bincount(plane.ravel(), minlength=MOST_ORGANS) for plane in organs.hu]
    ).astype(np.float64)
    slices = np.arange(len(counts))[:, None]
    with np.errstate(invalid="ignore"):
        middles = (counts * slices).sum(0) / counts.sum(0)
    middles[0] = np.nan
    return {"heights": torch.from_numpy(middles)}
