"""A blinded reading: which cases radiologists see, and what their answers come to.

Two fifths of the cases are real scans under their own reports, two fifths synthetic
volumes under theirs, and one fifth synthetic volumes under the report of another: who
rates those as high as the others has not looked. The order is by lot, and what a case
is stands in a key that readers do not get.
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float64

from ctflow_fed.errors import ReportTableError, SettingsError, StoreError
from ctflow_fed.evaluation.figure import Figure, Verdict, not_measured
from ctflow_fed.evaluation.scans import Scan
from ctflow_fed.evaluation.scores import Interval, interval
from ctflow_fed.files import read_json, write_json, write_text
from ctflow_fed.seeds import derive_seed

__all__ = [
    "COLUMNS",
    "Case",
    "draw_cases",
    "read_key",
    "study_figures",
    "write_key",
    "write_sheet",
]

Kind = Literal["real", "synthetic", "other report"]

COLUMNS = ("case", "real", "agreement", "quality", "remarks")
"""Of the answer sheet: yes or no, 1 to 5, 1 to 5, anything."""

FORMAT = "ctflow-fed reading study 1"
LEAST_CASES, MOST_CASES = 10, 500
DRAWS = 2000
AS_REAL = 0.9
WORSE = -0.5
"""On a scale of 1 to 5, how much less well synthetic volumes may be rated."""

Ratings = Float64[np.ndarray, " cases"]
World = Mapping[str, np.ndarray]
"""The places of the cases of each kind, as they are or drawn anew."""

_Measure = Callable[[Mapping[str, Ratings], World], float]
_Passes = Callable[[Interval], bool]


@dataclass(frozen=True)
class Case:
    """A volume and the report that is shown with it."""

    kind: Kind
    scan: Scan
    report: str


def draw_cases(
    real: Sequence[tuple[Scan, str]],
    synthetic: Sequence[tuple[Scan, str]],
    *,
    count: int,
    seed: int,
) -> list[Case]:
    """Draw so many cases from scans and volumes with their reports, in random order.

    Raises ``SettingsError`` where there are too few of them.
    """
    if not LEAST_CASES <= count <= MOST_CASES:
        raise SettingsError(
            f"expected {LEAST_CASES} to {MOST_CASES} cases of a study, got {count}"
        )
    own, control = 2 * count // 5, count // 5
    drawn = count - own
    if len(real) < own or len(synthetic) < drawn:
        raise SettingsError(
            f"expected {own} real and {drawn} synthetic volumes with reports for "
            f"{count} cases, got {len(real)} and {len(synthetic)}; ask for fewer cases"
        )
    rng = np.random.default_rng(derive_seed("reading study", seed))
    seen = [synthetic[place] for place in rng.permutation(len(synthetic))[:drawn]]
    cases = [Case("real", *real[place]) for place in rng.permutation(len(real))[:own]]
    cases += [Case("synthetic", *each) for each in seen[control:]]
    cases += [
        Case("other report", scan, _other(report, seen))
        for scan, report in seen[:control]
    ]
    return [cases[place] for place in rng.permutation(len(cases))]


def write_key(path: Path, cases: Sequence[Case]) -> None:
    """Write what each case is; readers must not see it."""
    write_json(path, {"format": FORMAT, "cases": [case.kind for case in cases]})


def read_key(path: Path) -> list[Kind]:
    """Read a key; raises ``StoreError`` where it is none."""
    try:
        value = read_json(path)
        kinds: list[Kind] = value["cases"]
        if value["format"] != FORMAT or set(kinds) != set(get_args(Kind)):
            raise ValueError
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        raise StoreError(
            "expected the key of a reading study, found a file that is none; name the "
            "folder that the study was written to"
        ) from None
    return kinds


def write_sheet(path: Path, count: int) -> None:
    """Write an empty answer sheet."""
    rows = [",".join(COLUMNS), *(f"{number},,,," for number in range(1, count + 1))]
    write_text(path, "\n".join(rows) + "\n")


def study_figures(
    kinds: Sequence[Kind], sheets: Sequence[Path], *, seed: int
) -> list[Figure]:
    """Return what the filled sheets of one or more readers come to.

    Raises ``ReportTableError`` for a sheet that is not filled in.
    """
    if not sheets:
        raise SettingsError("expected filled answer sheets, got none; name them")
    answers = [_answers(sheet, len(kinds)) for sheet in sheets]
    mean = {name: np.mean([each[name] for each in answers], 0) for name in answers[0]}
    whole = {
        kind: np.array([place for place, each in enumerate(kinds) if each == kind])
        for kind in get_args(Kind)
    }
    rng = np.random.default_rng(derive_seed("reading study", seed))
    worlds = [
        {kind: rng.choice(own, len(own)) for kind, own in whole.items()}
        for _ in range(DRAWS)
    ]
    figures = []
    for name, measure, passes, convention, method in QUESTIONS:
        value = measure(mean, whole)
        if not np.isfinite(value):
            reason = "real scans were rated no better than another's report"
            figures.append(not_measured(name, "", convention, reason))
            continue
        drawn = np.array([measure(mean, world) for world in worlds])
        found = interval(value, drawn)
        verdict: Verdict = "pass" if passes(found) else "fail"
        figures.append(
            Figure(
                name=name,
                part="",
                n=len(kinds),
                value=found,
                convention=convention,
                verdict=verdict,
                method=f"{method}; {len(sheets)} readers, bootstrap over cases",
            )
        )
    return figures


def _other(report: str, seen: Sequence[tuple[Scan, str]]) -> str:
    """Return the first report that says something else."""
    found = next((other for _, other in seen if other != report), None)
    if found is None:
        raise SettingsError(
            "expected synthetic volumes of different reports, got the same for all"
        )
    return found


def _answers(sheet: Path, count: int) -> dict[str, Ratings]:
    """Read a sheet: whether each case looks real (1 or 0), and the two ratings."""
    try:
        with sheet.open(encoding="utf-8-sig", newline="") as file:
            rows = {int(row["case"]): row for row in csv.DictReader(file)}
        ordered = [rows[number] for number in range(1, count + 1)]
        return {
            "real": np.array([_choice(row["real"]) for row in ordered]),
            "agreement": np.array([_rating(row["agreement"]) for row in ordered]),
            "quality": np.array([_rating(row["quality"]) for row in ordered]),
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error):
        raise ReportTableError(
            f"expected an answer sheet with {count} cases, each real yes or no and "
            "agreement and quality 1 to 5, got other answers; fill it in"
        ) from None


def _choice(text: str) -> float:
    return float(("no", "yes").index(text.strip().lower()))


def _rating(text: str) -> float:
    return float((None, "1", "2", "3", "4", "5").index(text.strip()))


def _agreement(mean: Mapping[str, Ratings], world: World) -> float:
    """Return how far synthetic volumes come from another's report to real scans."""
    rated = mean["agreement"]
    own, drawn, other = (rated[world[kind]].mean() for kind in get_args(Kind))
    return float((drawn - other) / (own - other)) if own > other else float("nan")


def _told_apart(mean: Mapping[str, Ratings], world: World) -> float:
    taken = mean["real"]
    real, synthetic = (taken[world[kind]].mean() for kind in ("real", "synthetic"))
    return float((real + 1 - synthetic) / 2)


def _quality(mean: Mapping[str, Ratings], world: World) -> float:
    rated = mean["quality"]
    return float(rated[world["synthetic"]].mean() - rated[world["real"]].mean())


QUESTIONS: tuple[tuple[str, _Measure, _Passes, str, str], ...] = (
    (
        "reader_agreement",
        _agreement,
        lambda found: found.value >= AS_REAL,
        f"{AS_REAL} or more",
        "how far ratings of synthetic volumes come from those under another report (0) "
        "to those of real scans (1)",
    ),
    (
        "readers_tell_apart",
        _told_apart,
        lambda found: found.low <= 0.5,
        "the interval reaches down to 0.5, a guess",
        "real scans taken for real, and synthetic volumes not",
    ),
    (
        "reader_quality",
        _quality,
        lambda found: found.value >= WORSE,
        f"not below {WORSE} on a scale of 1 to 5",
        "rating of synthetic volumes less that of real scans",
    ),
)
"""Name, measure, when it passes, and both in words."""
