"""``ctflow evaluate utility``."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ctflow_fed.cli.actors import actors
from ctflow_fed.cli.evaluate_alignment import labels_of_set
from ctflow_fed.cli.options import FOLDER, PATIENTS, TABLE
from ctflow_fed.cli.results import result_options, show_results
from ctflow_fed.errors import SettingsError

if TYPE_CHECKING:
    from ctflow_fed.evaluation import Item
    from ctflow_fed.evaluation.reading_back import LabelledScans

__all__ = ["utility"]


@click.command()
@click.argument("real", type=FOLDER)
@click.argument("synth", type=FOLDER)
@click.argument("test", type=FOLDER)
@click.option(
    "--labels",
    type=TABLE,
    required=True,
    help="Of the scans in REAL and TEST: a table with the column study (the name of a "
    "file) and the 18 findings of CT-RATE, or reports, as the intake takes it.",
)
@click.option(
    "--test-labels",
    type=TABLE,
    help="The same of TEST alone, where it has a table of its own.",
)
@click.option(
    "--synth-labels",
    type=TABLE,
    help="The same of SYNTH; a set of ctflow augment has its own.",
)
@PATIENTS
@click.option(
    "--groups",
    type=TABLE,
    help="A table with the column study and others, sex, age and site, say: every "
    "value of a column is a group of test patients that shall not lose.",
)
@click.option(
    "--fraction", default=1.0, show_default=True, help="Of REAL's patients that train."
)
@click.option("--ratio", type=float, help="Synthetic volumes to a real one, at most.")
@click.option("--steps", default=120, show_default=True, help="Of each training.")
@click.option("--repeats", default=3, show_default=True, help="Trainings of an arm.")
@click.option(
    "--grid",
    nargs=3,
    type=int,
    default=(64, 64, 32),
    show_default=True,
    metavar="X Y Z",
)
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--ray",
    is_flag=True,
    help="Train in the actors of a Ray, each of which holds all volumes.",
)
@click.option("--address", help="With --ray, the cluster to join.")
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="With --ray, so many actors.  [default: one a core of this machine]",
)
@result_options
def utility(
    real: Path,
    synth: Path,
    test: Path,
    labels: Path,
    test_labels: Path | None,
    synth_labels: Path | None,
    patients: Path | None,
    groups: Path | None,
    fraction: float,
    ratio: float | None,
    steps: int,
    repeats: int,
    grid: tuple[int, int, int],
    seed: int,
    ray: bool,
    address: str | None,
    workers: int | None,
    out: Path,
    as_json: bool,
) -> None:
    """Say whether a classifier is better with SYNTH than without it.

    Arms of REAL, of copies of it, of it strongly augmented, of SYNTH, and of both are
    trained equally long and tested on TEST, of patients and best of a hospital that
    neither the classifier nor the generator has seen. The same command goes on.
    """
    from ctflow_fed.evaluation import UtilitySettings
    from ctflow_fed.evaluation.portions import first_of, some_patients
    from ctflow_fed.evaluation.reading_back import LabelledScans, read_labels
    from ctflow_fed.evaluation.scans import read_groups, read_patients, scans_of
    from ctflow_fed.evaluation.usefulness import measure_usefulness

    if workers is not None and not ray:
        raise SettingsError("--workers are those of a Ray; add --ray")
    elsewhere = actors(workers, ray, address)
    settings = UtilitySettings(shape=grid, steps=steps, repeats=repeats, seed=seed)
    known = read_patients(patients) if patients else None
    volumes, of_synth = labels_of_set(synth)
    if synth_labels is not None:
        of_synth = read_labels(synth_labels)
    of_real = read_labels(labels)
    of_test = read_labels(test_labels) if test_labels else of_real
    tested = LabelledScans.of(scans_of(test, known), of_test)
    trained = _items(LabelledScans.of(scans_of(real, known), of_real))
    trained = some_patients(trained, fraction, seed=seed)
    drawn = _items(LabelledScans.of(scans_of(volumes), of_synth), synthetic=True)
    if ratio is not None:
        drawn = first_of(drawn, ratio * len(trained), seed=seed)
    found = measure_usefulness(
        trained,
        drawn,
        _items(tested),
        groups=read_groups(groups, tested.scans) if groups else {},
        cache=out / "fits",
        settings=settings,
        elsewhere=elsewhere,
    )
    show_results(found, out, as_json)


def _items(labelled: "LabelledScans", *, synthetic: bool = False) -> "list[Item]":
    return [
        {
            "image": str(scan.path.absolute()),
            "label": label,
            "report": "",
            "synthetic": synthetic,
            "sample_id": scan.digest,
            "patient": scan.patient,
        }
        for scan, label in zip(labelled.scans, labelled.labels, strict=True)
    ]
