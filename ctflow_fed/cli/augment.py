"""``ctflow augment plan | run | reader | dicom | latents | status``."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ctflow_fed import augment
from ctflow_fed.augment.datalist import read_datalist
from ctflow_fed.cli.drawing import sampler_options
from ctflow_fed.cli.options import PACKAGE
from ctflow_fed.errors import SettingsError

__all__ = ["command"]

PATH = click.Path(path_type=Path)
PAUSE = 5.0
"""Seconds between two looks of ``status --watch``."""


@click.group("augment")
def command() -> None:
    """Draw labelled synthetic volumes for a training set."""


@command.command()
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="FINDING=COUNT",
    help='Volumes that shall show a finding, as in "Bronchiectasis=500"; repeatable.',
)
@click.option(
    "--reports",
    type=PATH,
    help="Reports to draw as they are: a .csv as the intake takes it, or a text file "
    "with one a line.",
)
@click.option(
    "--datalist",
    type=PATH,
    help="Real items, as MONAI's datalists are: what occurs with what is read there.",
)
@click.option(
    "--ratio",
    type=float,
    help="Fill the plan up to so many times the datalist, against its imbalance.",
)
@click.option(
    "--exclude", type=PATH, help="A datalist whose reports must not be used: the test."
)
@click.option(
    "--sentences",
    type=click.Choice(["phantom", "items"]),
    default="phantom",
    show_default=True,
    help="Compose reports by the phantoms' grammar, or of the datalist's sentences.",
)
@click.option("--age-band", help="First words of composed reports: 60-69, say, or 90+.")
@click.option("--sex", type=click.Choice(["F", "M"]), help="... and the sex.")
@click.option("--slices", default=64, show_default=True, help="Slices of a volume.")
@click.option("--slice-mm", type=float, help="Their distance; by default the model's.")
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--model",
    type=PACKAGE,
    help="Draw one volume with it, to tell what the plan will take.",
)
@click.option("--out", type=PATH, required=True, help="The plan, a JSON file.")
def plan(
    targets: tuple[str, ...], model: Path | None, out: Path, **chosen: Any
) -> None:
    """Decide which volumes to draw; nothing is drawn yet."""
    target = dict(map(_target, targets))
    made = augment.PlanSettings(target=target, **chosen).make()
    made.save(out)
    cost = None if model is None else augment.probe(made, model=model)
    click.echo(made.describe(cost))


@command.command()
@click.argument("plan_file", metavar="PLAN", type=PATH)
@click.option(
    "--model", type=PACKAGE, help="A model package, or base: the shipped one."
)
@click.option("--out", type=PATH, help="Where the volumes go.")
@click.option(
    "--workers",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="Ray actors; 0 draws in this process, without Ray.",
)
@click.option(
    "--address", envvar="RAY_ADDRESS", help="A Ray cluster, not this machine."
)
@click.option(
    "--shard",
    metavar="K/N",
    help="Draw only this part of the plan, 1/N to N/N; others may draw theirs into the "
    "same folder.",
)
@click.option("--batch", default=1, show_default=True, help="Volumes drawn together.")
@click.option(
    "--gate",
    type=click.Choice(["none", "any", "chest"]),
    default="none",
    show_default=True,
    help="Refuse what is no sound CT, or shows no lungs, and keep it apart.",
)
@click.option(
    "--candidates",
    default=1,
    show_default=True,
    help="Volumes drawn for a request, of which the gate keeps the best.",
)
@click.option(
    "--copies",
    type=PATH,
    help="A site's private index: the gate refuses what repeats one of its scans.",
)
@click.option(
    "--reader",
    type=PATH,
    help="A reader: the gate refuses volumes in which it does not read what was asked.",
)
@click.option(
    "--ahead", type=int, help="Wait while so many volumes lie there for a stream."
)
@sampler_options
@click.pass_context
def run(
    context: click.Context, /, plan_file: Path, shard: str | None, **settings: Any
) -> None:
    """Draw the volumes of a PLAN; the same command goes on after an interruption.

    PLAN is a file of `ctflow augment plan`, or a whole job in TOML; options that are
    given go before what the job says.
    """
    chosen = {
        name: value
        for name, value in settings.items()
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    }
    job, made = augment.Job(), None
    if plan_file.suffix == ".toml":
        job = augment.Job.from_toml(plan_file)
        made = job.plan.make()
    store = job.choosing(**chosen).draw(made or augment.Plan.load(plan_file), shard)
    _show(store.status())


@command.command()
@click.argument("datalist", type=PATH)
@click.option("--out", type=PATH, required=True, help="The reader, .safetensors.")
@click.option("--steps", default=700, show_default=True, type=click.IntRange(1))
@click.option("--seed", default=0, show_default=True)
def reader(datalist: Path, out: Path, steps: int, seed: int) -> None:
    """Train a reader of findings on the real scans of a DATALIST, for the gate.

    A quarter of the patients is held out to see what it can read.
    """
    items = read_datalist(datalist)
    found = augment.train_reader(items, out, steps=steps, seed=seed)
    click.echo(f"{len(found)} of 18 findings can be read")
    for name, auroc in found.items():
        click.echo(f"  {name:<36}  AUROC {auroc:.2f}")


@command.command()
@click.argument("folder", type=PATH)
@click.option("--out", type=PATH, required=True, help="Where the series go.")
def dicom(folder: Path, out: Path) -> None:
    """Write a set of synthetic volumes as CT series that say that they are synthetic.

    The same command goes on after an interruption.
    """
    written = augment.write_dicom(augment.SynthStore(folder), out)
    click.echo(f"{written} series written")


@command.command()
@click.argument("folder", type=PATH)
@click.option("--out", type=PATH, required=True, help="The store of latents.")
@click.option("--codec", default="haar", show_default=True, help="The model's codec.")
@click.option(
    "--encoder", default="hashing", show_default=True, help="... and report encoder."
)
def latents(folder: Path, out: Path, codec: str, encoder: str) -> None:
    """Write a set of synthetic volumes as latents, as an intake makes them of scans.

    The same command goes on after an interruption.
    """
    store = augment.SynthStore(folder)
    written = augment.write_latents(store, out, codec=codec, encoder=encoder)
    click.echo(f"{written} volumes written as latents")


@command.command()
@click.argument("folder", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.option("--watch", is_flag=True, help="Say it again while a run goes on.")
def status(folder: Path, as_json: bool, watch: bool) -> None:
    """Say how far a set of synthetic volumes is, and whether a run goes on."""
    store = augment.SynthStore(folder)
    while True:
        began = time.monotonic()
        found = store.status()
        if as_json:
            value = {**asdict(found), "hours_left": found.hours_left}
            click.echo(json.dumps(value, sort_keys=True))
        else:
            _show(found)
        if not (watch and found.runs):
            return
        time.sleep(max(PAUSE, time.monotonic() - began))  # half of the time at the most


def _target(text: str) -> tuple[str, int]:
    """Read ``FINDING=COUNT``."""
    name, _, count = text.rpartition("=")
    if not (name and count.isascii() and count.isdigit() and len(count) < 8):
        raise SettingsError(
            'a target must be FINDING=COUNT, as in "Bronchiectasis=500"'
        )
    return name.strip(), int(count)


def _show(found: augment.StoreStatus) -> None:
    """Print how far a set is."""
    click.echo(
        f"{found.done} of {found.planned} volumes, {found.bytes / 1e6:.1f} MB; "
        f"{found.refused} refused by the gate, {found.spent} spent by a stream; "
        f"{found.left} missing, of these {found.damaged} damaged and "
        f"{found.failed} failed"
    )
    click.echo(_pace(found))
    for name, count in found.positives.items():
        if count:
            click.echo(f"  {name:<36}{count:>7}")


def _pace(found: augment.StoreStatus) -> str:
    """Say whether the set is being filled, and how fast."""
    if not found.runs:
        return "no run goes on"
    runs = "1 run goes on" if found.runs == 1 else f"{found.runs} runs go on"
    if not found.hourly or found.hours_left is None:
        return f"{runs}, no volume is drawn yet"
    minutes = round(60 * found.hours_left)
    left = f"{minutes // 60} h {minutes % 60} min"
    return f"{runs}: {found.hourly:.0f} volumes an hour, about {left} left"
