"""Volumes of a folder with the report of each."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ctflow_fed.cli.options import TABLE

if TYPE_CHECKING:
    from ctflow_fed.evaluation.scans import Scan

__all__ = ["report_options", "told_scans", "told_volumes"]

Function = TypeVar("Function", bound=Callable[..., Any])


def report_options(function: Function) -> Function:
    """Add the tables of reports of REAL and of SYNTH."""
    of_real = click.option(
        "--reports",
        type=TABLE,
        required=True,
        help="Of the scans in REAL: a table with the columns study (the name of a "
        "file) and report, as the intake takes it.",
    )
    of_synth = click.option(
        "--synth-reports",
        type=TABLE,
        help="The same of SYNTH; a set of ctflow augment has its own.",
    )
    return of_real(of_synth(function))


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
    is_set = (folder / "synth.json").exists()
    volumes = folder / "volumes" if is_set else folder
    if table is not None:
        return told_scans(volumes, table)
    if not is_set:
        return []
    from ctflow_fed.augment import SynthStore

    store = SynthStore(folder)
    return _told(
        volumes, {each.sample_id: store.report(each) for each in store.records()}
    )


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
