"""``ctflow intake``: scans and reports -> a store of latents."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ctflow_fed.errors import IncompleteError

if TYPE_CHECKING:
    from ctflow_fed.ct.intake import IntakeAccount

__all__ = ["command"]


@click.command("intake")
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--reports",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV with a column study and findings, impression or report; perhaps patient.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the store; an existing one goes on.",
)
@click.option(
    "--image-size", default=256, show_default=True, help="Pixels along each side."
)
@click.option(
    "--codec",
    default="haar",
    show_default=True,
    help="haar, or a folder or hub id of FLUX's autoencoder.",
)
@click.option(
    "--encoder",
    default="hashing",
    show_default=True,
    help="hashing, or a folder of CT-CLIP's text tower.",
)
def command(
    source: Path, reports: Path, out: Path, image_size: int, codec: str, encoder: str
) -> None:
    """Take CT and reports into a store of latents.

    SOURCE holds one study a folder (a DICOM series or a NIfTI file, at any depth) or a
    file (NIfTI).
    Every study is taken or refused with a reason; the names stand on this screen only,
    the account saved in the store has none.
    """
    from ctflow_fed.ct.intake import IntakeSettings, intake

    account = intake(source, reports, out, IntakeSettings(image_size, codec, encoder))
    _show(account)
    if not account.taken:
        raise IncompleteError(
            f"expected studies to take, but all {len(account.refused)} were refused; "
            "the reasons stand above and in intake.json"
        )


def _show(account: "IntakeAccount") -> None:
    """Print one line a study, in the order of the source, and the sums."""
    studies = sorted(account.taken + account.refused, key=lambda study: study.position)
    width = max(len(study.name) for study in studies)
    for study in studies:
        taken = "taken" if study.new else "in the store already"
        outcome = f"refused: {study.reason}" if study.reason else taken
        name = "".join(char if char.isprintable() else "?" for char in study.name)
        click.echo(f"{study.position:4d}  {name:<{width}}  {outcome}")
    new = sum(study.new for study in account.taken)
    click.echo(
        f"{new} taken, {len(account.taken) - new} in the store already, "
        f"{len(account.refused)} refused; "
        f"{account.reports_without_scan} reports without a scan"
    )
