"""``ctflow evaluate study | answers``."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ctflow_fed.cli.options import FOLDER, NEW_FOLDER, TABLE
from ctflow_fed.cli.results import result_options, show_results

if TYPE_CHECKING:
    from ctflow_fed.evaluation.scans import Scan

__all__ = ["answers", "study"]


@click.command()
@click.argument("real", type=FOLDER)
@click.argument("synth", type=FOLDER)
@click.option(
    "--reports",
    type=TABLE,
    required=True,
    help="Of the scans in REAL: a table with the columns study (the name of a file) "
    "and report, as the intake takes it.",
)
@click.option(
    "--synth-reports",
    type=TABLE,
    help="The same of SYNTH; a set of ctflow augment has its own.",
)
@click.option("--cases", default=50, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--out", type=NEW_FOLDER, required=True, help="For page, sheet and key.")
def study(
    real: Path,
    synth: Path,
    reports: Path,
    synth_reports: Path | None,
    cases: int,
    seed: int,
    out: Path,
) -> None:
    """Write a blinded reading study for radiologists.

    They get study.html and answers.csv; key.json says what each case is and is not for
    them.
    """
    from ctflow_fed.evaluation.reading_study import draw_cases, write_key, write_sheet
    from ctflow_fed.evaluation.scans import scans_of
    from ctflow_fed.report.study import write_study_page

    volumes, of_synth = _reports_of_set(synth)
    if synth_reports is not None:
        of_synth = _texts(synth_reports)
    drawn = draw_cases(
        _told(scans_of(real), _texts(reports)),
        _told(scans_of(volumes), of_synth),
        count=cases,
        seed=seed,
    )
    write_study_page(out / "study.html", drawn)
    write_sheet(out / "answers.csv", len(drawn))
    write_key(out / "key.json", drawn)
    click.echo(f"{len(drawn)} cases; give study.html and answers.csv to the readers")


@click.command()
@click.argument("folder", type=FOLDER)
@click.argument("sheets", type=TABLE, nargs=-1, required=True)
@click.option("--seed", default=0, show_default=True)
@result_options
def answers(
    folder: Path, sheets: tuple[Path, ...], seed: int, out: Path, as_json: bool
) -> None:
    """Say what the filled SHEETS of a reading study come to; FOLDER has its key."""
    from ctflow_fed.evaluation import Evaluation
    from ctflow_fed.evaluation.reading_study import read_key, study_figures

    figures = study_figures(read_key(folder / "key.json"), sheets, seed=seed)
    made = {"readers": len(sheets), "settings": {"seed": seed}}
    show_results(Evaluation("alignment", figures, made), out, as_json)


def _texts(table: Path) -> dict[str, str]:
    from ctflow_fed.ct.report_table import read_reports

    reports = read_reports(table).items()
    return {name: report.text for name, report in reports if not report.problem}


def _told(scans: "list[Scan]", texts: Mapping[str, str]) -> "list[tuple[Scan, str]]":
    return [(scan, texts[scan.name]) for scan in scans if scan.name in texts]


def _reports_of_set(folder: Path) -> tuple[Path, Mapping[str, str]]:
    """Return the volumes and reports of a set of ``ctflow augment``, if it is one."""
    if not (folder / "synth.json").exists():
        return folder, {}
    from ctflow_fed.augment import SynthStore

    store = SynthStore(folder)
    records = store.records()
    return folder / "volumes", {each.sample_id: store.report(each) for each in records}
