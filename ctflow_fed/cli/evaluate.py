"""``ctflow evaluate fidelity | codec | drift``."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ctflow_fed.cli.options import FOLDER, NEW_FOLDER

if TYPE_CHECKING:
    from ctflow_fed.evaluation.figure import Evaluation
    from ctflow_fed.evaluation.scores import Interval

__all__ = ["command"]

Function = TypeVar("Function", bound=Callable[..., Any])

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


def _kept(function: Function) -> Function:
    """Add where results go, and how they are shown."""
    out = click.option(
        "--out",
        type=NEW_FOLDER,
        required=True,
        help="For results, and for what was measured of each volume.",
    )
    as_json = click.option("--json", "as_json", is_flag=True, help="For machines.")
    return out(as_json(function))


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
@click.option("--splits", default=100, show_default=True, help="Random halves.")
@click.option("--seed", default=0, show_default=True)
@_kept
def fidelity(
    real: Path,
    synth: Path,
    patients: Path | None,
    codec: str,
    splits: int,
    seed: int,
    out: Path,
    as_json: bool,
) -> None:
    """Compare the NIfTI volumes of two folders, REAL and SYNTH.

    Both are compared with real volumes at the same number: the floor is that of other
    real ones, the ceiling that of real ones after the codec.
    """
    from ctflow_fed.ct.codec import codec_named
    from ctflow_fed.evaluation.fidelity import FidelitySettings, measure_fidelity
    from ctflow_fed.evaluation.measuring import Lens
    from ctflow_fed.evaluation.scans import read_patients, scans_of

    settings = FidelitySettings(splits=splits, seed=seed)
    table = read_patients(patients) if patients else None
    found = measure_fidelity(
        scans_of(real, table),
        scans_of(synth),
        lens=Lens.embedded(),
        codec=codec_named(codec),
        cache=out / "features",
        settings=settings,
    )
    _show(found, out, as_json)


@command.command()
@click.argument("folder", type=FOLDER)
@CODEC
@click.option("--seed", default=0, show_default=True)
@_kept
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
    _show(found, out, as_json)


def _show(found: "Evaluation", out: Path, as_json: bool) -> None:
    """Write the results and print them, worst last."""
    found.save(out / f"{found.kind}.json")
    if as_json:
        click.echo(json.dumps(found.to_json(), sort_keys=True, allow_nan=False))
        return
    rows = [("", "", "value", "floor", "ceiling", "")]
    rows += [
        (
            figure.name,
            figure.part,
            _number(figure.value) + (f" {figure.unit}" if figure.unit else ""),
            _number(figure.floor),
            _number(figure.ceiling),
            figure.verdict,
        )
        for figure in found.figures
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, strict=True)
        click.echo("  ".join(f"{cell:<{width}}" for cell, width in cells).rstrip())
    verdicts = [figure.verdict for figure in found.figures]
    counts = {word: verdicts.count(word) for word in ("pass", "fail", "not measured")}
    told = ", ".join(f"{count} {word}" for word, count in counts.items())
    click.echo(f"{told}; n, conventions and methods: {out / (found.kind + '.json')}")


def _number(interval: "Interval | None") -> str:
    """Write a number with its interval, three digits each."""
    if interval is None:
        return "-"
    return f"{interval.value:.3g} [{interval.low:.3g}, {interval.high:.3g}]"
