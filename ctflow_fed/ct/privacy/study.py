"""The report of a study, scrubbed by what its scan and its row in the table tell."""

from collections.abc import Iterator
from pathlib import Path

from ctflow_fed.ct.dicom.series import visible_files
from ctflow_fed.ct.privacy.headers import header_identifiers
from ctflow_fed.ct.privacy.identity import in_cells
from ctflow_fed.ct.privacy.scrub import Scrubbed, scrub
from ctflow_fed.ct.report_table import Report

__all__ = ["scrub_report"]


def scrub_report(report: Report, scan: Path) -> Scrubbed:
    """Scrub the text of a report.

    ``scan`` is the file or the folder of the study; all files of a folder are of one
    patient, so one header of each folder is read.
    """
    identifiers = set(in_cells(report.private))
    for path in _one_a_folder(scan):
        identifiers |= header_identifiers(path)
    return scrub(report.text, identifiers)


def _one_a_folder(scan: Path) -> Iterator[Path]:
    if scan.is_file():
        yield scan
        return
    yield from {path.parent: path for path in visible_files(scan)}.values()
