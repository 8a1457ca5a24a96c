"""What scores of patients who were trained on, and of others, give away."""

from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Float64

from ctflow_fed.errors import SettingsError
from ctflow_fed.evaluation.figure import Figure, Verdict, not_measured
from ctflow_fed.evaluation.scores import (
    Draws,
    Interval,
    draw_patients,
    interval,
    resampled_auroc,
)
from ctflow_fed.evaluation.shares import share
from ctflow_fed.training import audited_epsilon

__all__ = ["audit_figure", "membership_area", "membership_figures"]

PatientScores = Float64[np.ndarray, " _"]
ByAttack = Mapping[str, Float64[np.ndarray, "..."]]
"""The scores of the patients of one side."""

LEAST = 20
"""Patients on each side below which an area says nothing."""

SMALL_AREA = 0.55
MANY = 1000
"""Others that are needed for one in a hundred of them to be a number."""

DRAWS = 2000


def membership_area(
    members: PatientScores, others: PatientScores, *, seed: int
) -> Interval:
    """Return the chance that a member scores above another, with its 95 % interval."""
    scores = np.concatenate([members, others])[None, :, None]
    truth = (np.arange(scores.shape[1]) < len(members))[:, None]
    once = Draws(np.ones((1, scores.shape[1])), np.zeros((1, 1), np.int64))
    names = [str(number) for number in range(scores.shape[1])]
    draws = draw_patients(names, repeats=1, draws=DRAWS, seed=seed)
    value = resampled_auroc(scores, truth, once)[0]
    return interval(value, resampled_auroc(scores, truth, draws))


def membership_figures(
    members: ByAttack, others: ByAttack, *, seed: int
) -> Iterator[Figure]:
    """Yield the area and the rate of true positives of each attack.

    Raises ``SettingsError`` where there are too few patients on a side.
    """
    for name, own in members.items():
        least = min(len(own), len(others[name]))
        if least < LEAST:
            raise SettingsError(
                f"expected {LEAST} or more patients who were trained on and as many "
                f"who were not, got {least} on one side; add some"
            )
        yield _area_figure(name, own, others[name], seed)
        yield _rate_figure(name, own, others[name])


def audit_figure(
    members: ByAttack,
    others: ByAttack,
    *,
    tossed: bool,
    epsilon: float | None,
    delta: float | None,
) -> Figure:
    """Hold the promise of a ledger against what an audit in one run found out.

    The theorem needs that each patient joined by the toss of a coin (``tossed``). The
    best attack counts; each has its share of the 5 % of error.
    """
    convention = "not above the epsilon that the model's ledger promises"
    if not tossed:
        return not_measured(
            "epsilon_lower_bound",
            "",
            convention,
            "needs patients who joined the training by the toss of a coin",
        )
    bound = max(
        _bound(members[name], others[name], delta or 0.0, 1 - 0.05 / len(members))
        for name in members
    )
    count = len(next(iter(members.values()))) + len(next(iter(others.values())))
    promise = "no epsilon" if epsilon is None else f"epsilon {epsilon:.2f}"
    verdict: Verdict = "not measured"
    if epsilon is not None:
        verdict = "pass" if bound <= epsilon else "fail"
    return Figure(
        name="epsilon_lower_bound",
        part="",
        n=count,
        value=Interval(bound, bound, bound),
        convention=convention,
        verdict=verdict,
        method=f"audit in one run (arXiv 2305.08846), one-sided, 95 %; {promise} is "
        f"promised at delta {delta or 0.0:g}",
    )


def _bound(
    members: PatientScores, others: PatientScores, delta: float, confidence: float
) -> float:
    scores = np.concatenate([members, others])
    joined = np.arange(len(scores)) < len(members)
    guesses = max(2, len(scores) // 2)
    return audited_epsilon(
        scores, joined, guesses=guesses, delta=delta, confidence=confidence
    )


def _area_figure(
    attack: str, members: PatientScores, others: PatientScores, seed: int
) -> Figure:
    area = membership_area(members, others, seed=seed)
    well = area.value < SMALL_AREA or area.low <= 0.5
    return Figure(
        name="membership_auc",
        part=attack,
        n=min(len(members), len(others)),
        value=area,
        convention=f"below {SMALL_AREA}, or the interval reaches down to 0.5",
        verdict="pass" if well else "fail",
        method=f"{len(members)} patients who were trained on against {len(others)} who "
        "were not, bootstrap over patients",
    )


def _rate_figure(attack: str, members: PatientScores, others: PatientScores) -> Figure:
    """Return how many members are found at few false alarms: 1 % if others are many."""
    rate = 0.01 if len(others) >= MANY else 0.1
    allowed = int(rate * len(others))
    bar = np.sort(others)[-(allowed + 1)]
    found = share(int((members > bar).sum()), len(members))
    return Figure(
        name="membership_tpr",
        part=attack,
        n=len(members),
        value=found,
        convention=f"below {2 * rate:.0%} at {rate:.0%} of false positives",
        verdict="pass" if found.value < 2 * rate else "fail",
        method=f"members above all but {allowed} of {len(others)} others; 1 % of false "
        f"positives needs {MANY} of them",
    )
