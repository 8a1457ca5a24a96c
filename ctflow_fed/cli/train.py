"""``ctflow train``: one store, no federation."""

from pathlib import Path

import click

from ctflow_fed.cli.options import FOLDER, NEW_FOLDER, start_options

__all__ = ["command"]


@click.command("train")
@click.argument("site", type=FOLDER)
@click.option("--out", required=True, type=NEW_FOLDER, help="Where the run is kept.")
@click.option("--steps", default=1000, show_default=True, help="Steps in all.")
@click.option("--batch-clips", default=8, show_default=True, help="Clips in a step.")
@click.option("--learning-rate", default=1e-3, show_default=True)
@start_options
def command(
    site: Path,
    out: Path,
    steps: int,
    batch_clips: int,
    learning_rate: float,
    preset: str,
    init: Path | None,
    seed: int,
) -> None:
    """Train on one SITE (a store made by `ctflow intake`), without a federation.

    It is the baseline that federated runs are compared with. To resume, repeat the
    command.
    """
    from ctflow_fed.ct.store import LatentStore
    from ctflow_fed.model import start_network
    from ctflow_fed.training import TrainSettings, train

    network, parent = start_network(preset, init, seed)
    settings = TrainSettings(batch_clips=batch_clips, learning_rate=learning_rate)
    model = train(
        network,
        LatentStore.open(site),
        out,
        settings,
        steps=steps,
        seed=seed,
        parent=parent,
    )
    click.echo(f"model: {model}")
