"""Volumes of a folder with the report of each."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ctflow_fed.augment import SynthStore
    from ctflow_fed.evaluation.scans import Scan

__all__ = ["set_in", "told_scans", "told_volumes"]


def set_in(folder: Path) -> "tuple[Path, SynthStore | None]":
    """Return where volumes lie, and the set of ``ctflow augment`` that they may be."""
    if not (folder / "synth.json").exists():
        return folder, None
    from ctflow_fed.augment import SynthStore

    return folder / "volumes", SynthStore(folder)


def told_scans(
    folder: Path, table: Path, patients: Path | None = None
) -> "list[tuple[Scan, str]]":
    """Return the volumes of a folder that a table has a report of, with it.

    Another table may name their ``patients``.
    """
    from ctflow_fed.ct.report_table import read_reports

    reports = read_reports(table).items()
    known = {name: report.text for name, report in reports if not report.problem}
    return _told(folder, known, patients)


def told_volumes(folder: Path, table: Path | None) -> "list[tuple[Scan, str]]":
    """Return the same of synthetic ones; a set of ``ctflow augment`` needs no table."""
    volumes, store = set_in(folder)
    if table is not None:
        return told_scans(volumes, table)
    if store is None:
        return []
    texts = {each.sample_id: store.report(each) for each in store.records()}
    return _told(volumes, texts)


def _told(
    folder: Path, texts: Mapping[str, str], patients: Path | None = None
) -> "list[tuple[Scan, str]]":
    from ctflow_fed.evaluation.scans import read_patients, scans_of

    whose = read_patients(patients) if patients else None
    return [
        (scan, texts[scan.name])
        for scan in scans_of(folder, whose)
        if texts.get(scan.name)
    ]
