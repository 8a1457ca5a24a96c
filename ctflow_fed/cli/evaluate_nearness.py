"""``ctflow evaluate nearness``."""

from pathlib import Path

import click

from ctflow_fed.cli.options import FOLDER, PATIENTS, report_options
from ctflow_fed.cli.results import result_options, show_results
from ctflow_fed.cli.told import told_scans, told_volumes

__all__ = ["nearness"]


@click.command()
@click.argument("real", type=FOLDER)
@click.argument("synth", type=FOLDER)
@report_options
@click.option(
    "--ctclip",
    type=FOLDER,
    required=True,
    help="CT-CLIP: config.json and vocab.txt of CXR-BERT, and the whole checkpoint as "
    "model.safetensors.",
)
@PATIENTS
@click.option("--seed", default=0, show_default=True)
@result_options
def nearness(
    real: Path,
    synth: Path,
    reports: Path,
    synth_reports: Path | None,
    ctclip: Path,
    patients: Path | None,
    seed: int,
    out: Path,
    as_json: bool,
) -> None:
    """Score how near the volumes of SYNTH lie to their reports, by CT-CLIP.

    The score of real scans with their reports is the ceiling, that of reports dealt
    out anew the floor.
    """
    from ctflow_fed.evaluation.nearness import measure_nearness

    found = measure_nearness(
        told_scans(real, reports, patients),
        told_volumes(synth, synth_reports),
        ctclip=ctclip,
        cache=out / "features",
        seed=seed,
    )
    show_results(found, out, as_json, "nearness")
