"""Do volumes show what their reports say? A reader that learnt from real scans tells.

Of each finding that it can read in held-out real scans, the reader's logit in synthetic
volumes is held against the labels of their reports: an AUROC, beside that of the real
scans (the ceiling) and that of reports dealt out anew (the floor). The consistency
index is how much of the way from no report to real scans the volumes come:
``(AUROC - 0.5) / (AUROC of real scans - 0.5)``, the mean over the findings.

In counterfactual pairs, volumes of one seed whose reports differ by one finding, its
logit should move, and the others should not.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64

from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.evaluation.figure import Figure, not_measured
from ctflow_fed.evaluation.scores import (
    Draws,
    Interval,
    draw_patients,
    interval,
    resampled_auroc,
)
from ctflow_fed.reader.calibration import FEWEST, READABLE
from ctflow_fed.seeds import derive_seed

__all__ = [
    "ReadSet",
    "alignment_figures",
    "consistency_index",
    "movement",
    "pair_figures",
]

CONSISTENT = 0.9
NEAR_REAL = f"{CONSISTENT} or more"
ABOVE_DEALT = "the whole interval is above 97.5 % of reports dealt out anew"
DRAWS = 1000
FEWEST_PAIRS = 5

Logits = Float[np.ndarray, "_ 18"]


@dataclass(frozen=True, eq=False)
class ReadSet:
    """What a reader said of volumes, what their reports say, and whose they are."""

    logits: Logits
    labels: Bool[np.ndarray, "volumes 18"]
    patients: Sequence[str]


def consistency_index(
    drawn: Mapping[str, float], real: Mapping[str, float]
) -> tuple[float, list[str]]:
    """Return the index, and the findings that it is over: those read in real scans.

    Both map findings to AUROCs.
    """
    names = [name for name, value in real.items() if value >= READABLE]
    shares = [(drawn[name] - 0.5) / (real[name] - 0.5) for name in names]
    return float(np.mean(shares)), names


def movement(
    with_it: Logits, without: Logits, place: int, spread: Float[np.ndarray, "18"]
) -> float:
    """Return how far a finding's logit moves, in deviations of the others' movement.

    Logits are ``[pairs, 18]``, each divided by its ``spread`` on real volumes.
    """
    moved = (with_it - without) / spread
    others = np.delete(moved, place, axis=1)
    return float(moved[:, place].mean() / others.std())


def alignment_figures(real: ReadSet, drawn: ReadSet, *, seed: int) -> list[Figure]:
    """Hold the reading of synthetic volumes against that of held-out real scans.

    Where no finding can be read, or too few volumes have any, nothing is measured.
    """
    places = [
        place
        for place in range(len(FINDINGS))
        if _enough(real, place)
        and _enough(drawn, place)
        and _auroc(real, place) >= READABLE
    ]
    if not places:
        reason = (
            f"the reader reads no finding of {FEWEST} volumes with it and {FEWEST} "
            f"without, on both sides, with an AUROC of {READABLE} in real scans; "
            "give more scans with labels"
        )
        return [
            not_measured("consistency_index", "", NEAR_REAL, reason),
            not_measured("read_back", "", ABOVE_DEALT, reason),
        ]
    samples = [
        {place: _resampled(each, place, derive_seed(side, seed)) for place in places}
        for side, each in (("real", real), ("drawn", drawn))
    ]
    rows = [
        _row(real, drawn, place, samples[0][place], samples[1][place], seed)
        for place in places
    ]
    return [_index(rows, samples[0], samples[1], len(drawn.labels)), *rows]


def pair_figures(
    pairs: Mapping[str, tuple[Logits, Logits]], real: ReadSet, *, seed: int
) -> Iterator[Figure]:
    """Yield of each finding how far its logit moves as it is added to a report.

    ``pairs`` are the logits of volumes with and without the finding, pair by pair.
    """
    convention = "the whole interval is above 1: more than the other findings move"
    spread = real.logits.std(axis=0).clip(1e-6)
    rng = np.random.default_rng(derive_seed("pairs", seed))
    for name, (with_it, without) in pairs.items():
        if len(with_it) < FEWEST_PAIRS:
            reason = f"{len(with_it)} pairs, of which {FEWEST_PAIRS} are needed"
            yield not_measured("counterfactual", name, convention, reason)
            continue
        place, count = FINDINGS.index(name), len(with_it)
        drawn = [
            movement(with_it[rows], without[rows], place, spread)
            for rows in rng.integers(count, size=(DRAWS, count))
        ]
        moved = interval(movement(with_it, without, place, spread), np.array(drawn))
        yield Figure(
            name="counterfactual",
            part=name,
            n=count,
            value=moved,
            convention=convention,
            verdict="pass" if moved.low > 1 else "fail",
            method="mean movement of the finding's logit over the deviation of the "
            "others', in units of their spread on real scans; bootstrap over pairs",
        )


def _enough(read: ReadSet, place: int) -> bool:
    present = int(read.labels[:, place].sum())
    return min(present, len(read.labels) - present) >= FEWEST


def _auroc(read: ReadSet, place: int) -> float:
    once = Draws(np.ones((1, len(read.labels))), np.zeros((1, 1), np.int64))
    return float(resampled_auroc(_column(read, place), _truth(read, place), once)[0])


def _resampled(read: ReadSet, place: int, seed: int) -> Float64[np.ndarray, " draws"]:
    draws = draw_patients(list(read.patients), repeats=1, draws=DRAWS, seed=seed)
    return resampled_auroc(_column(read, place), _truth(read, place), draws)


def _column(read: ReadSet, place: int) -> Float64[np.ndarray, "1 volumes 1"]:
    return read.logits[None, :, [place]]


def _truth(read: ReadSet, place: int) -> Bool[np.ndarray, "volumes 1"]:
    return read.labels[:, [place]]


def _shuffled(read: ReadSet, place: int, seed: int) -> Interval:
    """Return the AUROC of reports dealt out anew, and where 95 % of deals lie."""
    rng = np.random.default_rng(derive_seed("shuffled", seed, place))
    dealt = [
        _auroc(ReadSet(rng.permutation(read.logits), read.labels, read.patients), place)
        for _ in range(DRAWS // 5)
    ]
    return interval(float(np.mean(dealt)), np.array(dealt))


def _row(
    real: ReadSet,
    drawn: ReadSet,
    place: int,
    of_real: Float64[np.ndarray, " draws"],
    of_drawn: Float64[np.ndarray, " draws"],
    seed: int,
) -> Figure:
    value = interval(_auroc(drawn, place), of_drawn)
    floor = _shuffled(drawn, place, seed)
    return Figure(
        name="read_back",
        part=FINDINGS[place],
        n=int(drawn.labels[:, place].sum()),
        value=value,
        floor=floor,
        ceiling=interval(_auroc(real, place), of_real),
        convention=ABOVE_DEALT,
        verdict="pass" if value.low > floor.high else "fail",
        method="AUROC of the reader's logit against the labels of the reports, "
        "bootstrap over patients; floor: reports dealt out anew; ceiling: held-out "
        "real scans",
    )


def _index(
    rows: Sequence[Figure],
    of_real: Mapping[int, Float64[np.ndarray, " draws"]],
    of_drawn: Mapping[int, Float64[np.ndarray, " draws"]],
    count: int,
) -> Figure:
    real = {row.part: row.ceiling.value for row in rows if row.ceiling}
    drawn = {row.part: row.value.value for row in rows if row.value}
    value, names = consistency_index(drawn, real)
    shares = [(of_drawn[place] - 0.5) / (of_real[place] - 0.5) for place in of_real]
    found = interval(value, np.mean(shares, axis=0))
    return Figure(
        name="consistency_index",
        part="",
        n=count,
        value=found,
        convention=NEAR_REAL,
        verdict="pass" if found.value >= CONSISTENT else "fail",
        method="mean of (AUROC - 0.5) / (AUROC of real scans - 0.5) over the "
        f"{len(names)} findings that the reader reads in real scans; bootstrap over "
        "patients of both",
    )
