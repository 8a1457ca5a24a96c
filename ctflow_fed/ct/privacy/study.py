"""The report of a study, scrubbed by what its scan and its row in the table tell."""

from functools import lru_cache
from pathlib import Path

from ctflow_fed.ct.dicom.series import visible_files
from ctflow_fed.ct.privacy.headers import header_identifiers
from ctflow_fed.ct.privacy.identity import Identifier, in_cells
from ctflow_fed.ct.privacy.scrub import Scrubbed, scrub
from ctflow_fed.ct.report_table import Report

__all__ = ["scrub_report"]


def scrub_report(report: Report, scan: Path, *, alone: bool = True) -> Scrubbed:
    """Scrub the text of a report.

    ``scan`` is the file or the folder of the study. Of a folder of a study ``alone``
    one header a folder is read, of one with several studies every header, once.
    """
    return scrub(report.text, in_cells(report.private) | _told_in(scan, alone))


@lru_cache(maxsize=4)
def _told_in(scan: Path, alone: bool) -> frozenset[Identifier]:
    paths = [scan] if scan.is_file() else visible_files(scan)
    if alone:
        paths = list({path.parent: path for path in paths}.values())
    return frozenset(each for path in paths for each in header_identifiers(path))
