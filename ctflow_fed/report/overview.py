"""`ctflow report RUN`: any run on one page, its verdicts first."""

from collections.abc import Sequence
from pathlib import Path

from ctflow_fed import __version__
from ctflow_fed.evaluation import Interval
from ctflow_fed.files import write_text
from ctflow_fed.report.charts import span
from ctflow_fed.report.figures import WINDOWS
from ctflow_fed.report.parts import parts_of
from ctflow_fed.report.rendering import render, scripts
from ctflow_fed.report.verdicts import Check, checks_of
from ctflow_fed.report.viewer import Shown

__all__ = ["write_overview"]


def write_overview(path: Path, run: Path, shown: Sequence[Shown] = ()) -> None:
    """Write the page of what a folder holds; it needs no other file and no network.

    ``shown`` are volumes for the viewer, real and synthetic ones. Raises
    ``StoreError`` where there is no run.
    """
    checks = checks_of(run)
    parts = parts_of(run)
    write_text(
        path,
        render(
            "overview.html.j2",
            filters={"measured": measured},
            charts={part.kind + part.place: part.chart for part in parts}
            | _spans(checks),
            scripts=scripts(viewer=bool(shown)),
            checks=checks,
            parts=parts,
            shown=shown,
            windows=WINDOWS,
            version=__version__,
        ),
    )


def measured(value: Interval | None) -> str:
    """Write a number with its interval."""
    if value is None:
        return ""
    return f"{value.value:.4g} ({value.low:.4g} to {value.high:.4g})".replace(
        "-", "\N{MINUS SIGN}"
    )


def _spans(checks: Sequence[Check]) -> dict[str, str]:
    """Return the small picture of every figure that has a value and a floor."""
    return {
        f"{place}:{number}": span(figure.value, figure.floor, figure.ceiling)
        for check in checks
        for place, evaluation in check.evaluations
        for number, figure in enumerate(evaluation.figures)
        if figure.value and figure.floor
    }
