"""The page of a reading study: each case with its report, nothing of its origin."""

from collections.abc import Sequence
from pathlib import Path

from ctflow_fed.evaluation.reading_study import Case
from ctflow_fed.files import write_text
from ctflow_fed.report.figures import views
from ctflow_fed.report.rendering import check_packages, render

__all__ = ["write_study_page"]


def write_study_page(path: Path, cases: Sequence[Case]) -> None:
    """Write the page that readers open; it needs no other file and no network.

    Raises ``MissingExtraError`` where jinja2 or pillow is not installed.
    """
    check_packages()
    shown = [
        {"number": number, "report": case.report, "views": views(case.scan.read())}
        for number, case in enumerate(cases, start=1)
    ]
    write_text(path, render("study.html.j2", filters={}, charts={}, cases=shown))
