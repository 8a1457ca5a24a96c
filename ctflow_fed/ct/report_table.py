"""reports.csv: the table that joins reports to studies."""

import csv
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ctflow_fed.ct.labels import FINDINGS, labels_of
from ctflow_fed.errors import ReportTableError

__all__ = ["Report", "normal_name", "read_reports"]

TEXT_COLUMNS = ("findings", "impression", "report")
TOO_MANY_FIELDS = (
    "its row has more fields than the table has columns; quote texts that hold commas"
)
LONGEST = 20_000  # characters; the longest report of CT-RATE has about 8,000


@dataclass(frozen=True)
class Report:
    """The report of one study; one with a ``problem`` cannot be used, and why.

    ``patient`` is what the table calls the patient, empty where it does not.
    """

    text: str
    labels: dict[str, int] = field(default_factory=dict)
    problem: str = ""
    patient: str = field(default="", repr=False)


def read_reports(path: Path) -> dict[str, Report]:
    """Read the reports of a table by the names of their studies.

    The table is UTF-8 with commas and has a column ``study`` (the name of the folder,
    or of the NIfTI file without its ending) and one or more of ``findings``,
    ``impression`` and ``report``. If it has CT-RATE's 18 label columns they are taken
    as they are, otherwise labels are read from the text (`labels_of`). A column
    ``patient`` may tell which studies are of one patient.

    Raises ``ReportTableError`` when the table is not like that or names a study twice.
    A row that cannot be used is a `Report` with a problem, so that it costs one study;
    one without a name stands under a name that no file can have. Blank rows are none.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file, strict=True)
            labelled = _check_columns(table.fieldnames or ())
            reports: dict[str, Report] = {}
            for row in table:
                excess = list(row.pop(None, ()))
                if not any(text and text.strip() for text in [*row.values(), *excess]):
                    continue
                name = normal_name(row["study"] or "") or f"/{table.line_num}"
                if name in reports:
                    raise ReportTableError(
                        "expected one row a study, found a study of line "
                        f"{table.line_num} in an earlier line too; remove one of them"
                    )
                reports[name] = (
                    Report("", problem=TOO_MANY_FIELDS)
                    if excess
                    else _report(row, labelled)
                )
    except (OSError, UnicodeDecodeError, csv.Error):
        raise ReportTableError(
            "expected a table of reports as CSV in UTF-8, found a file that cannot be "
            "read as one; export it again"
        ) from None
    return reports


def normal_name(name: str) -> str:
    """Bring the name of a study to one spelling, wherever it was typed."""
    return unicodedata.normalize("NFC", name.strip())


def _check_columns(names: Sequence[str]) -> bool:
    """Refuse a table without the columns needed; tell whether it has labels."""
    if "study" not in names or not set(names) & set(TEXT_COLUMNS):
        raise ReportTableError(
            "expected a column study and one of findings, impression, report in the "
            "first line of the table; name them so, with commas between them"
        )
    if len(set(names)) < len(names):
        raise ReportTableError(
            "expected every column of the table once, found a name twice; rename one"
        )
    labels = set(names) & set(FINDINGS)
    if labels and len(labels) < len(FINDINGS):
        raise ReportTableError(
            f"expected all {len(FINDINGS)} label columns of CT-RATE or none, found "
            f"{len(labels)}; add the others or remove these"
        )
    return bool(labels)


def _report(row: dict[str, str | None], labelled: bool) -> Report:
    if not (row["study"] or "").strip():
        return Report("", problem="its row names no study")
    text = " ".join((row.get(name) or "").strip() for name in TEXT_COLUMNS).strip()
    if not text:
        return Report("", problem="its report is empty")
    if len(text) > LONGEST:
        return Report("", problem=f"its report has more than {LONGEST} characters")
    patient = normal_name(row.get("patient") or "")
    if not labelled:
        return Report(text, labels_of(text), patient=patient)
    values = {name: (row[name] or "").strip() for name in FINDINGS}
    if not set(values.values()) <= {"0", "1"}:
        return Report("", problem="a label in its row is neither 0 nor 1")
    labels = {name: int(value) for name, value in values.items()}
    return Report(text, labels, patient=patient)
