"""What was evaluated of a run, what that says, and what nobody has measured yet."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ctflow_fed.errors import StoreError
from ctflow_fed.evaluation import Evaluation, Figure, UtilityResult, Verdict
from ctflow_fed.files import read_json
from ctflow_fed.report.parts import folders_of

__all__ = ["CHECKS", "Check", "checks_of", "evaluations_in"]

LARGEST = 16 * 2**20  # bytes of a result

CHECKS = {
    "codec": ("Does the codec keep what a radiologist needs?", "codec REAL"),
    "fidelity": ("Do the volumes look like real ones?", "fidelity REAL SYNTHETIC"),
    "drift": (
        "Do they stay right from the first slice to the last?",
        "drift REAL SYNTHETIC",
    ),
    "alignment": ("Do they show what their reports say?", "alignment REAL SYNTHETIC"),
    "utility": (
        "Do they help a classifier on real patients?",
        "utility REAL SYNTHETIC TEST",
    ),
    "privacy": ("Do they repeat no patient?", "privacy REAL SYNTHETIC"),
}
"""Every kind of evaluation: its question, and what `ctflow evaluate` is told."""

GAIN = "the lower 95 % bound of the paired difference is above 0"


@dataclass(frozen=True)
class Check:
    """One question and what the figures of its evaluations answer together."""

    kind: str
    question: str
    command: str
    verdict: Verdict
    counts: Counter[str]
    evaluations: tuple[tuple[str, Evaluation], ...]


def checks_of(run: Path) -> list[Check]:
    """Return the answer to every question; one is `fail` where any figure fails."""
    found = list(evaluations_in(run))
    return [_check(kind, found) for kind in CHECKS]


def evaluations_in(run: Path) -> Iterator[tuple[str, Evaluation]]:
    """Yield the evaluations below a folder, each with its place there."""
    for folder, files in folders_of(run):
        for name in sorted(files):
            path = folder / name
            if not name.endswith(".json") or path.stat().st_size > LARGEST:
                continue
            place, value = str(path.relative_to(run)), _read(path)
            if str(value.get("kind")) in CHECKS and "figures" in value:
                yield place, Evaluation.from_json(value)
            elif "comparisons" in value:
                yield place, _utility(UtilityResult.from_json(value))


def _read(path: Path) -> dict[str, object]:
    try:
        value = read_json(path)
    except (ValueError, RecursionError):
        raise StoreError(
            "expected JSON in every .json file of the run, got one that is broken; "
            "make it again or take it away"
        ) from None
    return value if isinstance(value, dict) else {}


def _utility(result: UtilityResult) -> Evaluation:
    figures = [
        Figure(
            name="gain in macro AUROC",
            part=f"over {each.reference}",
            n=result.tested,
            value=each.difference,
            convention=GAIN,
            verdict="pass" if each.difference.low > 0 else "fail",
            method=(
                f"{result.settings.repeats} trainings an arm, paired bootstrap over "
                "the test patients and the trainings"
            ),
        )
        for each in result.comparisons
    ]
    return Evaluation("utility", figures, {"tested": result.tested})


def _check(kind: str, found: Sequence[tuple[str, Evaluation]]) -> Check:
    own = tuple(each for each in found if each[1].kind == kind)
    counts = Counter[str](each.verdict for _, one in own for each in one.figures)
    verdict: Verdict = "not measured"
    if counts["fail"]:
        verdict = "fail"
    elif counts["pass"]:
        verdict = "pass"
    question, told = CHECKS[kind]
    return Check(kind, question, f"ctflow evaluate {told}", verdict, counts, own)
