"""``ctflow phantom``: write phantom studies."""

from pathlib import Path
from typing import Literal

import click

__all__ = ["command"]

POSITIVE = click.IntRange(1)


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder for the studies and reports.csv.",
)
@click.option(
    "--count", type=POSITIVE, default=8, show_default=True, help="Number of studies."
)
@click.option(
    "--hospital",
    type=click.Choice(["north", "coast", "valley", "plain", "public"]),
    default="north",
    show_default=True,
    help="Whose patients and whose scanner.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["dicom", "nifti"]),
    default="dicom",
    show_default=True,
)
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--slices", type=POSITIVE, default=60, show_default=True, help="Slices of a study."
)
@click.option(
    "--rows", type=POSITIVE, default=128, show_default=True, help="Rows and columns."
)
@click.option(
    "--awkward",
    is_flag=True,
    help="Write one phantom in every awkward form of DICOM, with the truth beside it.",
)
def command(
    out: Path,
    count: int,
    hospital: str,
    kind: Literal["dicom", "nifti"],
    seed: int,
    slices: int,
    rows: int,
    awkward: bool,
) -> None:
    """Write phantom studies as DICOM or NIfTI, with reports.

    The same command goes on where it was stopped. They say that they are synthetic:
    `ctflow intake` takes them with --synthetic accept.
    """
    if awkward:
        _write_awkward(out, seed)
        return
    from dataclasses import replace

    from ctflow_fed.ct.phantom import HELD_OUT, HOSPITALS, PUBLIC
    from ctflow_fed.ct.phantom.writer import write_studies

    others = {population.name: population for population in (HELD_OUT, PUBLIC)}
    population = (HOSPITALS | others)[hospital]
    scanner = population.scanner.resized(slices, rows)
    write_studies(out, replace(population, scanner=scanner), count, seed, kind)
    click.echo(f"{count} studies and reports.csv in {out}")


def _write_awkward(out: Path, seed: int) -> None:
    """Write the awkward forms; what intake has to say of each stands beside them."""
    from ctflow_fed.ct.phantom.awkward import CASES, write_awkward

    write_awkward(out, seed=seed)
    click.echo(f"{len(CASES)} cases, cases.json and truth in {out}")
