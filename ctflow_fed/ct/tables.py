"""The tables of a source: reports, and what further ones say of the same studies."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ctflow_fed.ct.acquisition import COLUMNS, Acquisition
from ctflow_fed.ct.demographics import Demographics
from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.ct.report_table import (
    BAD_LABEL,
    TOO_MANY_FIELDS,
    Report,
    labels_in,
    private_cells,
    read_reports,
    study_rows,
)
from ctflow_fed.ct.table_files import EXCESS, Row
from ctflow_fed.errors import ReportTableError

__all__ = ["Tables"]


@dataclass(frozen=True)
class Tables:
    """The table of reports, and two that CT-RATE keeps apart from it.

    ``metadata`` tells place, scale, age and sex of each scan (`Acquisition`);
    ``labels`` the 18 findings, in place of what the reports say.
    """

    reports: Path
    metadata: Path | None = None
    labels: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that there are."""
        paths = (self.reports, self.metadata, self.labels)
        return tuple(path for path in paths if path is not None)

    def read(self) -> dict[str, Report]:
        """Join what the tables say of each study that has a report.

        A study that a table lacks, or of which it says what cannot be used, is a
        `Report` with a problem. Raises ``ReportTableError`` for a table without the
        columns needed, or one that names a study twice.
        """
        reports = read_reports(self.reports)
        if self.metadata is not None:
            rows = study_rows(self.metadata, COLUMNS)
            reports = dict(_joined(reports, rows, _with_metadata, "metadata"))
        if self.labels is not None:
            rows = study_rows(self.labels, FINDINGS)
            reports = dict(_joined(reports, rows, _with_labels, "labels"))
        return reports


_Join = Callable[[Report, Row], Report]


def _joined(
    reports: Mapping[str, Report],
    rows: Mapping[str, Row],
    join: _Join,
    told: str,
) -> Iterator[tuple[str, Report]]:
    for study, report in reports.items():
        if report.problem:
            yield study, report
        elif study not in rows:
            problem = f"the table of {told} has no row of it"
            yield study, replace(report, problem=problem)
        elif EXCESS in rows[study]:
            yield study, replace(report, problem=TOO_MANY_FIELDS)
        else:
            yield study, join(report, rows[study])


def _with_metadata(report: Report, row: Row) -> Report:
    try:
        acquisition = Acquisition.of(row)
    except ReportTableError as error:
        return replace(report, problem=str(error))
    told = Demographics.of(row.get("age", ""), row.get("sex", ""))
    return replace(
        report,
        acquisition=acquisition,
        demographics=Demographics.agreed({told, report.demographics}),
        private=(*report.private, *private_cells(row)),
    )


def _with_labels(report: Report, row: Row) -> Report:
    labels = labels_in(row)
    if labels is None:
        return replace(report, problem=BAD_LABEL)
    return replace(report, labels=labels)
