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
@click.option(
    "--method",
    default="known",
    show_default=True,
    type=click.Choice(["known", "ctflow"]),
    help="Clips with some slices known, or the paper's: each after the one below it.",
)
@click.option(
    "--adapter-rank",
    type=int,
    default=None,
    help="Train a low-rank adapter of --init in place of all weights (16 is usual).",
)
@click.option(
    "--checkpointing",
    is_flag=True,
    help="Compute activations twice in place of keeping them: less memory, slower.",
)
@start_options
def command(
    site: Path,
    out: Path,
    steps: int,
    batch_clips: int,
    learning_rate: float,
    method: str,
    adapter_rank: int | None,
    checkpointing: bool,
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
    from ctflow_fed.training import AdapterSettings, TrainSettings, train

    adapter = None if adapter_rank is None else AdapterSettings(rank=adapter_rank)
    network, parent = start_network(preset, init, seed)
    settings_of = TrainSettings.ctflow if method == "ctflow" else TrainSettings
    settings = settings_of(
        batch_clips=batch_clips,
        learning_rate=learning_rate,
        checkpointing=checkpointing,
    )
    model = train(
        network,
        LatentStore.open(site),
        out,
        settings,
        steps=steps,
        seed=seed,
        parent=parent,
        adapter=adapter,
    )
    if adapter is not None:
        click.echo(f"adapter: {out / 'adapter'}")
    click.echo(f"model: {model}")
