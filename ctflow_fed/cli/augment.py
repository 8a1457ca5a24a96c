"""``ctflow augment plan | run | status``."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ctflow_fed import augment
from ctflow_fed.cli.drawing import sampler_options
from ctflow_fed.cli.options import PACKAGE
from ctflow_fed.errors import SettingsError

__all__ = ["command"]

PATH = click.Path(path_type=Path)


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
    "--model",
    type=PACKAGE,
    required=True,
    help="A model package, or base for the shipped one.",
)
@click.option("--out", type=PATH, required=True, help="Where the volumes go.")
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
@click.option("--batch", default=1, show_default=True, help="Volumes drawn together.")
@sampler_options
def run(
    plan_file: Path,
    model: Path,
    out: Path,
    workers: int,
    address: str | None,
    **settings: object,
) -> None:
    """Draw the volumes of a PLAN; the same command goes on after an interruption."""
    store = augment.generate(
        augment.Plan.load(plan_file),
        model=model,
        out=out,
        workers=workers,
        address=address,
        settings=augment.GenerateSettings(**settings),  # type: ignore[arg-type]  # click's
    )
    _show(store.status())


@command.command()
@click.argument("folder", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def status(folder: Path, as_json: bool) -> None:
    """Say how far a set of synthetic volumes is, running or not."""
    found = augment.SynthStore(folder).status()
    if as_json:
        click.echo(json.dumps(asdict(found), sort_keys=True))
    else:
        _show(found)


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
    lacking = found.planned - found.done
    click.echo(
        f"{found.done} of {found.planned} volumes, {found.bytes / 1e6:.1f} MB; "
        f"{lacking} missing, of these {found.damaged} damaged and {found.failed} failed"
    )
    for name, count in found.positives.items():
        if count:
            click.echo(f"  {name:<36}{count:>7}")
