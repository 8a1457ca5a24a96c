"""``ctflow demo``: the whole chain on phantoms, and one page that explains it."""

from functools import partial
from pathlib import Path

import click

from ctflow_fed.cli.options import NEW_FOLDER

__all__ = ["command"]


@click.command("demo")
@click.option(
    "--out",
    type=NEW_FOLDER,
    default=Path("runs/demo"),
    show_default=True,
    help="Where everything is kept.",
)
@click.option("--seed", default=0, show_default=True)
def command(out: Path, seed: int) -> None:
    """Run the whole chain on phantoms and write one page about it.

    Three phantom hospitals train one generator; labelled volumes are drawn from it and
    a classifier is tested with and without them. To resume, repeat the command.
    """
    from ctflow_fed.demo import DemoSettings, run_demo
    from ctflow_fed.model import base_model

    settings = DemoSettings(seed=seed, init=str(base_model()))
    places = run_demo(out, settings, partial(click.echo, err=True))
    click.echo(places.summary)
    click.echo(places.page.resolve())
