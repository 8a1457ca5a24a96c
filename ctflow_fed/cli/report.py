"""``ctflow report RUN``."""

from pathlib import Path

import click

from ctflow_fed.cli.options import FOLDER

__all__ = ["command"]


@click.command("report")
@click.argument("run", type=FOLDER)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The page; by default overview.html in RUN.",
)
@click.option("--real", type=FOLDER, help="Real NIfTI volumes to show.")
@click.option("--synthetic", type=FOLDER, help="Synthetic NIfTI volumes to show.")
@click.option(
    "--volumes",
    type=click.IntRange(1, 12),
    default=3,
    show_default=True,
    help="How many of each to show, by name.",
)
def command(
    run: Path,
    out: Path | None,
    real: Path | None,
    synthetic: Path | None,
    volumes: int,
) -> None:
    """Explain what the folder RUN holds on one HTML page, verdicts first."""
    from ctflow_fed.report import show, volumes_in, write_overview
    from ctflow_fed.report.rendering import check_packages

    check_packages()

    shown = []
    if real is not None:
        shown += show(volumes_in(real)[:volumes], "real")
    if synthetic is not None:
        shown += show(volumes_in(synthetic)[:volumes], "synthetic")
    path = out or run / "overview.html"
    write_overview(path, run, shown)
    click.echo(f"page: {path}")
