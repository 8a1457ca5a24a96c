"""The table that joins reports to studies."""

import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ctflow_fed.ct.acquisition import Acquisition
from ctflow_fed.ct.demographics import UNKNOWN, Demographics
from ctflow_fed.ct.labels import FINDINGS, labels_of
from ctflow_fed.ct.privacy.identity import DESCRIBING
from ctflow_fed.ct.table_files import EXCESS, Row, read_table
from ctflow_fed.errors import ReportTableError

__all__ = [
    "BAD_LABEL",
    "TOO_MANY_FIELDS",
    "Report",
    "labels_in",
    "normal_name",
    "private_cells",
    "read_reports",
    "study_rows",
]

NAMES = {
    "VolumeName": "study",
    "AccessionNo": "study",
    "Findings_EN": "findings",
    "Impressions_EN": "impression",
    "report_text": "report",
    "PatientAge": "age",
    "PatientSex": "sex",
}
"""What CT-RATE calls the columns."""

TEXT_COLUMNS = ("findings", "impression", "report")
TOO_MANY_FIELDS = (
    "its row has more fields than the table has columns; quote texts that hold commas"
)
BAD_LABEL = "a label in its row is neither 0 nor 1"
LONGEST = 20_000  # characters; the longest report of CT-RATE has about 8,000

NIFTI_ENDING = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)

PRIVATE = re.compile(
    r"name|patient|study|mrn|\bid|id$|accession|birth|dob|phone|tel|mail|address|street"
    r"|city|zip|insur|physician|doctor|radiolog|refer|operator|uid|date|time|hospital"
    r"|institut|number|signed|author",
    re.IGNORECASE,
)
"""Columns whose values may tell who the patient is."""

PUBLIC = re.compile(
    r"^(?:patient)?[_ ]?(?:age|sex)$|orientation|position|^numberof", re.IGNORECASE
)
"""... and those that only look like it."""

CT_RATE_NAME = re.compile(r"((?:train|valid)_\d+)_[a-z]+_\d+")
"""Which patient of CT-RATE, which of the scans, and which reconstruction of it."""


@dataclass(frozen=True)
class Report:
    """The report of one study; one with a ``problem`` cannot be used, and why.

    ``patient`` is what the table calls the patient, empty where it does not;
    ``private`` are the values of columns that may tell who the patient is, with the
    names of the columns. ``acquisition`` is what a table of metadata says of the scan.
    """

    text: str = field(repr=False)
    labels: dict[str, int] = field(default_factory=dict)
    problem: str = ""
    patient: str = field(default="", repr=False)
    private: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    demographics: Demographics = UNKNOWN
    acquisition: Acquisition | None = None


def read_reports(path: Path) -> dict[str, Report]:
    """Read the reports of a table by the names of their studies.

    The table (`read_table`) has a column ``study`` (the name of the folder, or of the
    NIfTI file, with or without its ending) and one or more of ``findings``,
    ``impression`` and ``report``, or the columns of CT-RATE in their place. If it has
    CT-RATE's 18 label columns they are taken as they are, otherwise labels are read
    from the text (`labels_of`). A column ``patient`` may tell which studies are of one
    patient, as CT-RATE's names of volumes do; of columns ``age`` and ``sex`` a decade
    and a letter are kept.

    Raises ``ReportTableError`` when the table is not like that or names a study twice.
    A row that cannot be used is a `Report` with a problem, so that it costs one study;
    one without a name stands under a name that no file can have. Blank rows are none.
    """
    columns, rows = _named_rows(path)
    labelled = _check_columns(columns)
    return {name: _report(row, labelled) for name, row in rows.items()}


def study_rows(path: Path, needed: Collection[str]) -> dict[str, Row]:
    """Return the rows of a further table by their studies, its columns named as here.

    Raises ``ReportTableError`` when it lacks one of the columns ``needed``, or names a
    study twice.
    """
    columns, rows = _named_rows(path)
    missing = [name for name in ("study", *needed) if name not in columns]
    if missing:
        raise ReportTableError(
            f"expected a table with columns study, {', '.join(needed)}, found "
            f"{len(missing)} of them absent; give CT-RATE's table, or name them so"
        )
    return rows


def _named_rows(path: Path) -> tuple[list[str], dict[str, Row]]:
    """Return the columns and the row of each study, named as they are called here."""
    columns, rows = read_table(path)
    known = _known_columns(columns)
    found: dict[str, Row] = {}
    for line, cells in rows:
        row = {known.get(name, name): text for name, text in cells.items()}
        study = normal_name(NIFTI_ENDING.sub("", row.get("study", "")))
        name = study or f"/{line}"
        if name in found:
            raise ReportTableError(
                f"expected one row a study, found a study of line {line} in an earlier "
                "line too; remove one of them"
            )
        found[name] = row
    return [known[name] for name in columns], found


def labels_in(row: Row) -> dict[str, int] | None:
    """Return the 18 labels of a row, None when one is neither 0 nor 1."""
    labels = {name: row[name].removesuffix(".0") for name in FINDINGS}
    if not set(labels.values()) <= {"0", "1"}:
        return None
    return {name: int(value) for name, value in labels.items()}


def normal_name(name: str) -> str:
    """Bring the name of a study to one spelling, wherever it was typed."""
    return unicodedata.normalize("NFC", name.strip())


def _known_columns(columns: Sequence[str]) -> dict[str, str]:
    """Return what each column is called here: CT-RATE's only where ours is not."""
    return {
        name: NAMES[name] if name in NAMES and NAMES[name] not in columns else name
        for name in columns
    }


def _check_columns(names: Sequence[str]) -> bool:
    """Refuse a table without the columns needed; tell whether it has labels."""
    if "study" not in names or not set(names) & set(TEXT_COLUMNS):
        raise ReportTableError(
            "expected a column study and one of findings, impression, report in the "
            "first line of the table; name them so, with commas between them in a .csv"
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


def _report(row: Row, labelled: bool) -> Report:
    if EXCESS in row:
        return Report("", problem=TOO_MANY_FIELDS)
    if not row["study"]:
        return Report("", problem="its row names no study")
    text = " ".join(row.get(name, "") for name in TEXT_COLUMNS).strip()
    if not text:
        return Report("", problem="its report is empty")
    if len(text) > LONGEST:
        return Report("", problem=f"its report has more than {LONGEST} characters")
    labels = labels_in(row) if labelled else labels_of(text)
    if labels is None:
        return Report("", problem=BAD_LABEL)
    return Report(
        text,
        labels,
        patient=normal_name(row.get("patient", "")) or _patient_in(row["study"]),
        private=tuple(private_cells(row)),
        demographics=Demographics.of(row.get("age", ""), row.get("sex", "")),
    )


def _patient_in(study: str) -> str:
    found = CT_RATE_NAME.match(study)
    return found[1] if found else ""


def private_cells(row: Row) -> Iterator[tuple[str, str]]:
    """Yield the cells that may tell who the patient is."""
    for name, value in row.items():
        if not value or name in (*TEXT_COLUMNS, *FINDINGS) or PUBLIC.search(name):
            continue
        if PRIVATE.search(name) or DESCRIBING.search(name):
            yield name, value
