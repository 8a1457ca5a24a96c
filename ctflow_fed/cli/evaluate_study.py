"""``ctflow evaluate study | answers``."""

from pathlib import Path

import click

from ctflow_fed.cli.options import FOLDER, NEW_FOLDER, TABLE, report_options
from ctflow_fed.cli.results import result_options, show_results
from ctflow_fed.cli.told import told_scans, told_volumes

__all__ = ["answers", "study"]


@click.command()
@click.argument("real", type=FOLDER)
@click.argument("synth", type=FOLDER)
@report_options
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
    from ctflow_fed.report.study import write_study_page

    drawn = draw_cases(
        told_scans(real, reports),
        told_volumes(synth, synth_reports),
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
    show_results(Evaluation("alignment", figures, made), out, as_json, "answers")
