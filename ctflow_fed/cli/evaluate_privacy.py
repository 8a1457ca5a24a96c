"""``ctflow evaluate privacy | index``."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ctflow_fed.cli.options import FOLDER, PACKAGE, PATIENTS, TABLE
from ctflow_fed.cli.results import result_options, show_results
from ctflow_fed.errors import SettingsError

if TYPE_CHECKING:
    from ctflow_fed.evaluation import Figure
    from ctflow_fed.evaluation.privacy import CopySettings

__all__ = ["index", "privacy"]


@click.command()
@click.argument("real", type=FOLDER, required=False)
@click.argument("synth", type=FOLDER, required=False)
@PATIENTS
@click.option("--held-out", type=FOLDER, help="Scans of patients not trained on.")
@click.option(
    "--prompts",
    type=TABLE,
    help="A table with the columns synthetic and real: which real scan's report a "
    "volume was drawn from.",
)
@click.option(
    "--planted", default=12, show_default=True, help="Scans to hide copies of."
)
@click.option("--model", type=PACKAGE, help="The weights to attack, or base.")
@click.option("--members", type=FOLDER, help="A store of patients it was trained on.")
@click.option("--others", type=FOLDER, help="... and of patients it was not.")
@click.option("--reference", type=PACKAGE, help="A model that no member trained.")
@click.option(
    "--tossed", is_flag=True, help="A coin decided who of both became a member."
)
@click.option("--seed", default=0, show_default=True)
@result_options
def privacy(
    real: Path | None,
    synth: Path | None,
    patients: Path | None,
    held_out: Path | None,
    prompts: Path | None,
    planted: int,
    model: Path | None,
    members: Path | None,
    others: Path | None,
    reference: Path | None,
    tossed: bool,
    seed: int,
    out: Path,
    as_json: bool,
) -> None:
    """Say whether volumes repeat scans, and whether weights tell who was trained on.

    REAL are the scans that the generator of SYNTH was trained on; --model, --members
    and --others ask the weights. Either may be left out.
    """
    from ctflow_fed.evaluation import Evaluation
    from ctflow_fed.evaluation.privacy import CopySettings

    _refuse_halves(real, synth, model, members, others)
    settings = CopySettings(planted=planted, seed=seed)
    figures: list[Figure] = []
    if real is not None and synth is not None:
        figures += _of_volumes(
            real, synth, patients, held_out, prompts, out / "features", settings
        )
    if model is not None and members is not None and others is not None:
        figures += _of_weights(model, members, others, reference, tossed, seed)
    show_results(
        Evaluation("privacy", figures, {"settings": asdict(settings)}), out, as_json
    )


@click.command()
@click.argument("real", type=FOLDER)
@PATIENTS
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="The file to write."
)
def index(real: Path, patients: Path | None, out: Path) -> None:
    """Make the private index of the scans in REAL.

    `ctflow augment run --copies` keeps out volumes that repeat one of them. The index
    holds pictures of patients: it must not leave the site.
    """
    from ctflow_fed.evaluation.privacy import index_of
    from ctflow_fed.evaluation.scans import read_patients, scans_of

    table = read_patients(patients) if patients else None
    made = index_of(scans_of(real, table))
    made.save(out)
    click.echo(
        f"{len(made.own)} scans; a volume that is more alike to one than "
        f"{made.alarm:.3f} is a copy"
    )


def _of_volumes(
    real: Path,
    synth: Path,
    patients: Path | None,
    held_out: Path | None,
    prompts: Path | None,
    cache: Path,
    settings: "CopySettings",
) -> "list[Figure]":
    from ctflow_fed.evaluation.privacy import measure_copies
    from ctflow_fed.evaluation.scans import read_patients, read_prompts, scans_of

    table = read_patients(patients) if patients else None
    return measure_copies(
        scans_of(real, table),
        scans_of(synth),
        scans_of(held_out, table) if held_out else [],
        prompts=read_prompts(prompts) if prompts else {},
        cache=cache,
        settings=settings,
    )


def _of_weights(
    model: Path,
    members: Path,
    others: Path,
    reference: Path | None,
    tossed: bool,
    seed: int,
) -> "list[Figure]":
    from ctflow_fed.ct.store import LatentStore
    from ctflow_fed.evaluation.privacy import Weights, measure_weights
    from ctflow_fed.model import load_package

    weights = Weights(
        load_package(model),
        LatentStore.open(members),
        LatentStore.open(others),
        reference=load_package(reference) if reference else None,
        tossed=tossed,
    )
    return measure_weights(weights, seed=seed)


def _refuse_halves(*given: Path | None) -> None:
    """Refuse one folder without the other, a model without patients, and nothing."""
    volumes, weights = (
        {each is not None for each in part} for part in (given[:2], given[2:])
    )
    if len(volumes) > 1 or len(weights) > 1 or True not in volumes | weights:
        raise SettingsError(
            "expected REAL and SYNTH, or --model with --members and --others, or all "
            "of them, got a part; name the rest"
        )
