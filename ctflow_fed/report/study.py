"""The page of a reading study: each case with its report, nothing of its origin."""

from collections.abc import Sequence
from pathlib import Path

from ctflow_fed.evaluation.reading_study import Case
from ctflow_fed.files import write_text
from ctflow_fed.report.figures import WINDOWS
from ctflow_fed.report.rendering import check_packages, render, scripts
from ctflow_fed.report.viewer import packed

__all__ = ["write_study_page"]


def write_study_page(path: Path, cases: Sequence[Case]) -> None:
    """Write the page that readers open; it needs no other file and no network.

    Raises ``MissingExtraError`` where jinja2 or pillow is not installed.
    """
    check_packages()
    shown = [
        (packed(case.scan.read(), "case", number), case.report)
        for number, case in enumerate(cases, start=1)
    ]
    page = render(
        "study.html.j2",
        filters={},
        charts={},
        scripts=scripts(viewer=True),
        cases=shown,
        windows=WINDOWS,
    )
    write_text(path, page)
