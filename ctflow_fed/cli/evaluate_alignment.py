"""``ctflow evaluate alignment``."""

from collections.abc import Mapping
from pathlib import Path

import click

from ctflow_fed.cli.options import FOLDER, PATIENTS, TABLE
from ctflow_fed.cli.results import result_options, show_results
from ctflow_fed.cli.told import set_in

__all__ = ["alignment", "labels_of_set"]


@click.command()
@click.argument("real", type=FOLDER)
@click.argument("synth", type=FOLDER)
@click.option(
    "--labels",
    type=TABLE,
    required=True,
    help="Of the scans in REAL: a table with the column study (the name of a file) "
    "and the 18 findings of CT-RATE, or reports, as the intake takes it.",
)
@click.option(
    "--synth-labels",
    type=TABLE,
    help="The same of SYNTH; a set of ctflow augment has its own.",
)
@click.option(
    "--pairs",
    type=TABLE,
    help="A table with the columns finding, with and without: files of SYNTH of one "
    "seed whose reports differ by a finding.",
)
@PATIENTS
@click.option("--steps", default=700, show_default=True, help="Training of the reader.")
@click.option("--seed", default=0, show_default=True)
@result_options
def alignment(
    real: Path,
    synth: Path,
    labels: Path,
    synth_labels: Path | None,
    pairs: Path | None,
    patients: Path | None,
    steps: int,
    seed: int,
    out: Path,
    as_json: bool,
) -> None:
    """Say whether the volumes of SYNTH show what their reports say.

    A reader learns the findings from two thirds of the patients in REAL; what it reads
    in the others is the ceiling, what it reads under reports dealt out anew the floor.
    """
    from ctflow_fed.evaluation.reading_back import (
        AlignmentSettings,
        LabelledScans,
        Pair,
        measure_alignment,
        read_labels,
    )
    from ctflow_fed.evaluation.scans import read_pairs, read_patients, scans_of

    settings = AlignmentSettings(steps=steps, seed=seed)
    known = read_patients(patients) if patients else None
    volumes, of_synth = labels_of_set(synth)
    if synth_labels is not None:
        of_synth = read_labels(synth_labels)
    found = measure_alignment(
        LabelledScans.of(scans_of(real, known), read_labels(labels)),
        LabelledScans.of(scans_of(volumes), of_synth),
        pairs=[Pair(*each) for each in read_pairs(pairs)] if pairs else [],
        cache=out / "features",
        settings=settings,
    )
    show_results(found, out, as_json)


def labels_of_set(folder: Path) -> tuple[Path, Mapping[str, Mapping[str, int]]]:
    """Return the volumes and labels of a set of ``ctflow augment``, if it is one."""
    volumes, store = set_in(folder)
    records = store.records() if store else ()
    return volumes, {each.sample_id: each.labels for each in records}
