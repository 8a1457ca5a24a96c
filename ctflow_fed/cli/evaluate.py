"""``ctflow evaluate``: one command a question."""

from pathlib import Path

import click

from ctflow_fed.cli.evaluate_alignment import alignment
from ctflow_fed.cli.evaluate_drift import drift
from ctflow_fed.cli.evaluate_nearness import nearness
from ctflow_fed.cli.evaluate_pooled import pooled, statistics
from ctflow_fed.cli.evaluate_privacy import index, privacy
from ctflow_fed.cli.evaluate_study import answers, study
from ctflow_fed.cli.evaluate_utility import utility
from ctflow_fed.cli.options import FOLDER
from ctflow_fed.cli.results import result_options, show_results

__all__ = ["command"]

CODEC = click.option(
    "--codec",
    default="haar",
    show_default=True,
    help="haar, FOLDER, or released:FOLDER.",
)


@click.group("evaluate")
def command() -> None:
    """Say of synthetic volumes, by any generator, what they are worth.

    Every command writes a JSON file into the folder OUT and prints a table. A verdict
    is pass, fail or not measured; the file has the convention of each.
    """


@command.command()
@click.argument("real", type=FOLDER)
@click.argument("synth", type=FOLDER)
@click.option(
    "--patients",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A table with the columns study (the name of a file) and patient; without it "
    "every file is a patient of its own.",
)
@CODEC
@click.option(
    "--slices",
    "of_slices",
    default="haar",
    show_default=True,
    help="Extractor of features: haar, radimagenet:FILE, imagenet:FILE or "
    "inception:FILE.",
)
@click.option(
    "--volumes",
    "of_volumes",
    default="haar",
    show_default=True,
    help="The same of volumes: haar, medicalnet:FILE, ctnet:FILE or ctclip:FILE. FILE "
    "is in safetensors.",
)
@click.option("--splits", default=100, show_default=True, help="Random halves.")
@click.option("--seed", default=0, show_default=True)
@result_options
def fidelity(
    real: Path,
    synth: Path,
    patients: Path | None,
    codec: str,
    of_slices: str,
    of_volumes: str,
    splits: int,
    seed: int,
    out: Path,
    as_json: bool,
) -> None:
    """Compare the NIfTI volumes of two folders, REAL and SYNTH.

    Both are compared with real volumes at the same number: the floor is that of other
    real ones, the ceiling that of real ones after the codec. The embedded extractors
    have learnt nothing: compare their distances only with one another.
    """
    from ctflow_fed.ct.codec import codec_named
    from ctflow_fed.evaluation.features import extractor_named
    from ctflow_fed.evaluation.fidelity import FidelitySettings, measure_fidelity
    from ctflow_fed.evaluation.measuring import Lens
    from ctflow_fed.evaluation.scans import read_patients, scans_of

    settings = FidelitySettings(splits=splits, seed=seed)
    table = read_patients(patients) if patients else None
    found = measure_fidelity(
        scans_of(real, table),
        scans_of(synth),
        lens=Lens(extractor_named(of_slices, 2), extractor_named(of_volumes, 3)),
        codec=codec_named(codec),
        cache=out / "features",
        settings=settings,
    )
    show_results(found, out, as_json)


@command.command()
@click.argument("folder", type=FOLDER)
@CODEC
@click.option("--seed", default=0, show_default=True)
@result_options
def codec(folder: Path, codec: str, seed: int, out: Path, as_json: bool) -> None:
    """Send the slices of real volumes, NIfTI in FOLDER, through a codec and compare.

    They keep their own pixels. What a codec loses here no generator can bring back.
    """
    from ctflow_fed.ct.codec import codec_named
    from ctflow_fed.evaluation.codec import measure_codec
    from ctflow_fed.evaluation.scans import scans_of

    found = measure_codec(
        scans_of(folder), codec_named(codec), out / "features", seed=seed
    )
    show_results(found, out, as_json)


command.add_command(alignment)
command.add_command(drift)
command.add_command(nearness)
command.add_command(index)
command.add_command(pooled)
command.add_command(statistics)
command.add_command(privacy)
command.add_command(utility)
command.add_command(study)
command.add_command(answers)
