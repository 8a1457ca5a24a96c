"""The checks of drift, each on profiles of drawn and of real volumes.

Real anatomy changes with height as well: every number is read against the same number
of real volumes.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Float64

from ctflow_fed.evaluation.distances import kernel_distance
from ctflow_fed.evaluation.drift.profile import BLOCKS, CONTRASTS
from ctflow_fed.evaluation.drift.seams import (
    PERIOD,
    phase_test,
    seam_places,
    seams_of,
)
from ctflow_fed.evaluation.figure import Figure, not_measured
from ctflow_fed.evaluation.halves import Halves, band, interval_of
from ctflow_fed.evaluation.scores import Interval, draw_patients, interval

__all__ = ["Profile", "checks_of", "ending_checks"]

Profile = dict[str, np.ndarray]
"""The profile of one volume (`profile_of`)."""

ENDS = 0.15
"""The part of the height that is its beginning, or its end."""

DRAWS = 1000
SEAM_RATIO = 1.05
SEAM_P = 0.01
MOST_WRONG = "below 2 %"
FROZEN = 0.001
"""The quantile of real jumps below which two slices are a copy of one another."""

Values = Float64[np.ndarray, " _"]


def checks_of(
    drawn: Sequence[Profile],
    real: Sequence[Profile],
    halves: Halves,
    *,
    part: str,
    comparable: bool,
) -> Iterator[Figure]:
    """Yield D1 to D9, but for D7 and D8.

    Where ``comparable`` is false, real slices lie farther apart than drawn ones, and
    what compares neighbours with real neighbours is not measured.
    """
    yield from _curve(drawn, real, halves, part)
    for name in CONTRASTS:
        told = f"|mean of the first 15 % - last 15 %| of {name} over height"
        yield _in_band(
            f"contrast_{name}", part, drawn, real, _contrast(name), told, (0.05, 0.95)
        )
    yield from _seams(drawn, real, part)
    yield from _neighbours(drawn, real, part, comparable)
    for name in ("body_row", "body_col", "bone_row", "bone_col"):
        told = f"slope of the middle of {name.replace('_', ', ')}, mm in 100 mm"
        yield _in_band(
            f"tilt_{name}", part, drawn, real, _slope(name), told, (0.025, 0.975)
        )


def ending_checks(
    drawn: Sequence[Profile], part: str, asked: int | None
) -> Iterator[Figure]:
    """Yield D8: volumes that end with copies of a slice, or not where they should."""
    repeated = np.array([float(profile["repeated"]) for profile in drawn])
    told = "share of volumes whose last slices are copies; they are left out elsewhere"
    yield _share("repeated_end", part, repeated > 0, told)
    if asked is None:
        reason = "a folder does not tell how many slices were asked for"
        yield not_measured("wrong_length", part, MOST_WRONG, reason)
        return
    slices = repeated + [len(profile["mean"]) for profile in drawn]
    told = "share of volumes whose number of slices is not the one asked for"
    yield _share("wrong_length", part, slices != asked, told)


def _share(name: str, part: str, wrong: np.ndarray, told: str) -> Figure:
    return Figure(
        name,
        part,
        len(wrong),
        _mean(wrong.astype(float)),
        convention=MOST_WRONG,
        verdict="pass" if wrong.mean() < 0.02 else "fail",
        method=told,
    )


def _curve(
    drawn: Sequence[Profile], real: Sequence[Profile], halves: Halves, part: str
) -> Iterator[Figure]:
    """Yield D1: KID of each part of the height from real slices of the same part."""
    real_blocks, drawn_blocks = (
        np.stack([profile["blocks"] for profile in side]) for side in (real, drawn)
    )

    def curves(others: np.ndarray, rows: np.ndarray) -> np.ndarray:
        pairs = zip(halves.reference, rows, strict=True)
        return np.array(
            [
                [
                    kernel_distance(real_blocks[a, b], others[s, b])
                    for b in range(BLOCKS)
                ]
                for a, s in pairs
            ]
        )

    ours, floors = (
        curves(drawn_blocks, halves.synthetic),
        curves(real_blocks, halves.other),
    )
    at = np.arange(BLOCKS) - (BLOCKS - 1) / 2
    value, floor = (interval_of(c @ at / (at @ at)) for c in (ours, floors))
    yield Figure(
        "kid_slope",
        part,
        halves.n,
        value,
        floor=floor,
        convention="the interval reaches 0 or below: later slices are no worse",
        verdict="pass" if value.low <= 0 else "fail",
        method=f"slope of KID over {BLOCKS} parts of the height, from below",
    )
    for name, place in (("lowest", 0), ("highest", BLOCKS - 1)):
        value, floor = interval_of(ours[:, place]), band(floors[:, place])
        yield Figure(
            f"kid_{name}",
            part,
            halves.n,
            value,
            floor=floor,
            convention="not above 97.5 % of real volumes from as many real ones",
            verdict="pass" if value.value <= floor.high else "fail",
            method=f"KID of the {name} of {BLOCKS} parts of the height",
        )


def _seams(
    drawn: Sequence[Profile], real: Sequence[Profile], part: str
) -> Iterator[Figure]:
    """Yield D3: jumps where clips of 16 slices meet, against real ones there."""
    sums, known = (
        np.array([seams_of(profile["jump"]) for profile in side], float)
        for side in (drawn, real)
    )
    convention = f"at most {SEAM_RATIO}, in which real volumes are 1"
    if not (sums[:, 1].any() and known[:, 1].any()):
        yield not_measured("seam_ratio", part, convention, "no volume has 17 slices")
        return

    def ratios(weights: np.ndarray, table: np.ndarray) -> np.ndarray:
        across, places, elsewhere, others = (weights @ table).T
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(across / places / (elsewhere / others))

    base = ratios(np.ones((1, len(known))), known)[0]
    ones = ratios(np.ones((1, len(sums))), sums)[0]
    value = interval(ones / base, ratios(_weights(len(sums)), sums) / base)
    yield Figure(
        "seam_ratio",
        part,
        len(sums),
        value,
        floor=interval(1.0, ratios(_weights(len(known)), known) / base),
        convention=convention,
        verdict="pass" if value.value <= SEAM_RATIO else "fail",
        method=f"mean |HU difference| across every {PERIOD}th slice over elsewhere",
    )
    chance = phase_test([profile["jump"] for profile in drawn])
    convention = f"above {SEAM_P}"
    if np.isnan(chance):
        reason = f"no volume has {2 * PERIOD + 1} slices"
        yield not_measured("seam_phase_p", part, convention, reason)
        return
    yield Figure(
        "seam_phase_p",
        part,
        len(drawn),
        Interval(chance, chance, chance),
        convention=convention,
        verdict="pass" if chance > SEAM_P else "fail",
        method=f"chance that the seam is the largest of {PERIOD} phases so often",
    )


def _neighbours(
    drawn: Sequence[Profile], real: Sequence[Profile], part: str, comparable: bool
) -> Iterator[Figure]:
    """Yield D4, D5 and D9: neighbours as alike as real ones, not more, not less."""
    if not comparable:
        reason = "real slices lie farther apart than drawn ones"
        for name in ("seam_ncc", "seam_shift", "frozen"):
            yield not_measured(name, part, "as real volumes", reason)
        return
    yield _in_band(
        "seam_ncc",
        part,
        drawn,
        real,
        lambda p: _least(p["ncc"][seam_places(len(p["ncc"]))]),
        "smallest correlation of neighbours across seams",
        (0.05, 1.0),
    )
    ours, theirs = (
        np.array([_middle(p["shift"][seam_places(len(p["shift"]))]) for p in side])
        for side in (drawn, real)
    )
    yield _compared(
        "seam_shift",
        part,
        ours,
        theirs,
        lambda value, floor: value <= floor + 1,
        "at most 1 pixel above that of real volumes",
        "median shift of neighbours across seams, by phase correlation",
        "pixels",
    )
    edge = np.quantile(np.concatenate([p["jump"] for p in real]), FROZEN)
    yield _in_band(
        "frozen",
        part,
        drawn,
        real,
        lambda p: float((p["jump"] < edge).sum()),
        "neighbours that differ by less than 99.9 % of real ones do",
        (0.0, 0.975),
    )


def _in_band(
    name: str,
    part: str,
    drawn: Sequence[Profile],
    real: Sequence[Profile],
    of: Callable[[Profile], float],
    told: str,
    quantiles: tuple[float, float],
) -> Figure:
    """Compare the mean over drawn volumes with the band of single real ones."""
    ours, theirs = (np.array([of(each) for each in side]) for side in (drawn, real))
    ours, theirs = ours[np.isfinite(ours)], theirs[np.isfinite(theirs)]
    low, high = quantiles
    convention = f"within the real {low:.1%} to {high:.1%} band"
    if not (len(ours) and len(theirs)):
        return not_measured(name, part, convention, "one side has nothing of it")
    edges = np.quantile(theirs, quantiles)
    value = _mean(ours)
    return Figure(
        name,
        part,
        len(ours),
        value,
        floor=Interval(float(theirs.mean()), float(edges[0]), float(edges[1])),
        convention=convention,
        verdict="pass" if edges[0] <= value.value <= edges[1] else "fail",
        method=f"{told}; mean over volumes",
    )


def _compared(
    name: str,
    part: str,
    ours: Values,
    theirs: Values,
    well: Callable[[float, float], bool],
    convention: str,
    told: str,
    unit: str,
) -> Figure:
    """Compare the mean over drawn volumes with that of real ones."""
    ours, theirs = ours[np.isfinite(ours)], theirs[np.isfinite(theirs)]
    if not (len(ours) and len(theirs)):
        return not_measured(name, part, convention, "one side has nothing of it")
    value, floor = _mean(ours), _mean(theirs)
    return Figure(
        name,
        part,
        len(ours),
        value,
        unit=unit,
        floor=floor,
        convention=convention,
        verdict="pass" if well(value.value, floor.value) else "fail",
        method=f"{told}; mean over volumes",
    )


def _contrast(name: str) -> Callable[[Profile], float]:
    def of(profile: Profile) -> float:
        row = profile[name]
        part = max(1, round(ENDS * len(row)))
        return float(abs(row[:part].mean() - row[-part:].mean()))

    return of


def _slope(name: str) -> Callable[[Profile], float]:
    """Return a function that fits a line through a middle over height."""

    def of(profile: Profile) -> float:
        row = profile[name]
        there = np.isfinite(row)
        if there.sum() < 3:
            return float("nan")
        height = np.arange(len(row))[there] * float(profile["slice_mm"])
        return float(np.polyfit(height, row[there], 1)[0] * 100)

    return of


def _least(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.min()) if len(finite) else float("nan")


def _middle(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else float("nan")


def _mean(values: Values) -> Interval:
    """Return the mean over volumes with its bootstrap interval."""
    weights = _weights(len(values))
    return interval(float(values.mean()), weights @ values / len(values))


def _weights(count: int) -> np.ndarray:
    names = [str(number) for number in range(count)]
    return draw_patients(names, repeats=1, draws=DRAWS, seed=0).weights
