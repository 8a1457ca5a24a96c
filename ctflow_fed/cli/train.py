"""``ctflow train``: one store, no federation."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ctflow_fed.cli.options import (
    FOLDER,
    NEW_FOLDER,
    privacy_options,
    start_options,
)
from ctflow_fed.errors import SettingsError

if TYPE_CHECKING:
    from ctflow_fed.training import PrivacySettings

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
@privacy_options
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
    dp_epsilon: float | None,
    dp_delta: float | None,
    dp_noise: float | None,
    dp_clip: float | None,
    preset: str,
    init: Path | None,
    seed: int,
) -> None:
    """Train on one SITE (a store made by `ctflow intake`), without a federation.

    It is the baseline that federated runs are compared with. To resume, repeat the
    command. With --dp-epsilon, --batch-clips is the number of patients that a step
    expects.
    """
    from ctflow_fed.ct.store import LatentStore
    from ctflow_fed.model import start_network
    from ctflow_fed.model.package import read_provenance
    from ctflow_fed.training import AdapterSettings, TrainSettings, train

    adapter = None if adapter_rank is None else AdapterSettings(rank=adapter_rank)
    privacy = _privacy(dp_epsilon, dp_delta, dp_noise, dp_clip)
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
        privacy=privacy,
    )
    if adapter is not None:
        click.echo(f"adapter: {out / 'adapter'}")
    click.echo(f"model: {model}")
    if privacy is not None:
        provenance, _ = read_provenance(model / "provenance.json")
        click.echo(
            f"privacy: epsilon {provenance.epsilon:.2f} of {privacy.epsilon:g} spent "
            f"at delta {privacy.delta:g} in {provenance.steps} steps"
        )


def _privacy(
    epsilon: float | None,
    delta: float | None,
    noise: float | None,
    clip: float | None,
) -> "PrivacySettings | None":
    """Return the promise that was asked for; one without a budget is refused."""
    from ctflow_fed.training import PrivacySettings

    asked = {"delta": delta, "noise_multiplier": noise, "clip": clip}
    given = {name: value for name, value in asked.items() if value is not None}
    if epsilon is not None:
        return PrivacySettings(epsilon=epsilon, **given)
    if given:
        raise SettingsError("private training needs a budget; give it as --dp-epsilon")
    return None
