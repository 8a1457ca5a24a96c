"""``ctflow federation``: one generator, taught at several sites."""

import importlib.util
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ctflow_fed.cli.options import (
    FOLDER,
    NEW_FOLDER,
    privacy_options,
    start_options,
)
from ctflow_fed.cli.site import command as site_command
from ctflow_fed.cli.status import command as status_command
from ctflow_fed.errors import MissingExtraError

if TYPE_CHECKING:
    from ctflow_fed.federation import FederationSettings, Job, RoundRecord

__all__ = ["command"]


@click.group("federation")
def command() -> None:
    """Train one generator at several sites; only weights leave a site."""


command.add_command(site_command)
command.add_command(status_command)


@command.command("provision")
@click.argument(
    "consortium", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--out", required=True, type=NEW_FOLDER, help="The consortium's folder.")
@click.option("--reissue", multiple=True, help="A site that gets a new key and kit.")
@click.option("--revoke", multiple=True, help="A site that takes part no longer.")
def provision(
    consortium: Path, out: Path, reissue: tuple[str, ...], revoke: tuple[str, ...]
) -> None:
    """Make keys, certificates and a kit for each site of CONSORTIUM, a TOML file.

    What is there already is left alone; a command that was stopped may be repeated.
    """
    _need_cryptography()
    from ctflow_fed.deployment.consortium import read_consortium
    from ctflow_fed.deployment.provision import provision as provide

    done = provide(read_consortium(consortium), out, reissue, revoke)
    if done.server:
        click.echo(f"server: new certificate in {out / 'server'}")
    for site in done.issued:
        click.echo(f"{site}: new kit {out / 'kits' / site}.tar.gz")
    for site in done.revoked:
        click.echo(f"{site}: revoked; a server that runs takes it out by itself")
    if not (done.server or done.issued or done.revoked):
        click.echo("nothing was left to do")


@command.command("server")
@click.argument("folder", type=FOLDER)
def server(folder: Path) -> None:
    """Run the server of FOLDER, which `provision` made, until Ctrl-C or SIGTERM.

    Only nginx is open to the outside; jobs are submitted on this host.
    """
    _need_cryptography()
    from ctflow_fed.deployment.coordinator import serve

    def started(sites: tuple[str, ...]) -> None:
        click.echo(f"the server is up for {', '.join(sites) or 'no site'}", err=True)

    serve(folder, started)
    click.echo("the server was stopped", err=True)


@command.command("run")
@click.argument("sites", nargs=-1, type=FOLDER)
@click.option("--local", is_flag=True, help="Run all SITES on this machine.")
@click.option("--server", type=FOLDER, help="A folder whose server runs on this host.")
@click.option("--out", required=True, type=NEW_FOLDER, help="Where the job is kept.")
@click.option("--rounds", default=10, show_default=True, help="Rounds in all.")
@click.option("--steps", default=100, show_default=True, help="Steps in a round.")
@click.option("--batch-clips", default=8, show_default=True, help="Clips in a step.")
@click.option("--learning-rate", default=1e-3, show_default=True)
@click.option(
    "--method",
    default="known",
    show_default=True,
    type=click.Choice(["known", "ctflow"]),
    help="Clips with some slices known, or the paper's: each after the one below it.",
)
@click.option("--proximal", default=0.0, show_default=True, help="Mu of FedProx.")
@click.option(
    "--strategy",
    default="fedavg",
    show_default=True,
    type=click.Choice(
        ["fedavg", "fedavgm", "fedadam", "diloco", "trimmed-mean", "median"]
    ),
    help="How the server makes the next weights of what the sites send.",
)
@click.option(
    "--server-learning-rate",
    default=0.0,
    help="Of fedavgm, fedadam or diloco, in place of its own.",
)
@click.option(
    "--server-ema",
    default=0.0,
    help="Decay of an average of the weights over rounds, which then is the model.",
)
@click.option(
    "--min-sites",
    default=1,
    show_default=True,
    help="A round with fewer usable updates is not averaged.",
)
@click.option(
    "--max-share",
    default=1.0,
    show_default=True,
    help="Largest share of one site in the average.",
)
@click.option(
    "--patience",
    default=0,
    help="Stop after so many rounds without a lower loss, with the best model.",
)
@click.option(
    "--held-out",
    multiple=True,
    help="A site that trains nothing and tells the loss that counts.",
)
@click.option(
    "--adapter-rank",
    default=0,
    help="Train a low-rank adapter in place of all weights (16 is usual).",
)
@click.option(
    "--precision",
    default="float32",
    show_default=True,
    type=click.Choice(["float32", "bfloat16", "int8"]),
    help="Of what travels; what rounding takes from a change is made up for later.",
)
@click.option(
    "--optimizer",
    default="fresh",
    show_default=True,
    type=click.Choice(["fresh", "kept"]),
    help="What a site's optimizer remembers of the round before: nothing, or all.",
)
@click.option(
    "--secure-aggregation",
    is_flag=True,
    help="Let the server read the mean of the updates only, and none of them.",
)
@click.option(
    "--threshold",
    default=0,
    help="Sites that together take the masks off.  [default: more than half]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@privacy_options
@start_options
def run(
    sites: tuple[Path, ...],
    local: bool,
    server: Path | None,
    out: Path,
    as_json: bool,
    init: Path | None,
    **choices: Any,
) -> None:
    """Train at several sites and average in rounds. To resume, repeat the command.

    With --local at SITES, stores made by `ctflow intake`: the names of the folders name
    the sites. With --server at all sites of a consortium that are not revoked: the job
    is submitted to the server that `ctflow federation server` runs on this host.

    With --dp-epsilon every site trains privately, and takes part no more when it has
    spent its budget; --batch-clips is the number of patients that a step expects.
    """
    if local == (server is not None) or bool(sites) != local or (server and as_json):
        raise click.UsageError(
            "say --local with the stores of all sites to run them on this machine, or "
            "--server FOLDER with neither stores nor --json for sites elsewhere"
        )
    from ctflow_fed.deployment.local import name_sites, run_locally
    from ctflow_fed.federation import FederationSettings, RoundRecord

    stores = name_sites(sites)
    nodes = server.resolve() / "server" / "nodes" if server else None
    settings = FederationSettings(
        out=str(out if local else out.resolve()),
        sites=_registered(nodes) if nodes else tuple(stores),
        nodes=str(nodes or ""),
        init=str(init.resolve() if server else init) if init else "",
        **{name: value for name, value in choices.items() if value is not None},
    )
    if server:
        _submit(server, settings)
        return
    click.echo(f"{len(stores)} sites on this machine: {', '.join(stores)}", err=True)
    played: list[RoundRecord] = []

    def hear(record: RoundRecord) -> None:
        played.append(record)
        _say(record, settings.rounds)

    job = run_locally(settings, stores, hear)
    if not played:
        click.echo("nothing was left to do: the job is done already", err=True)
    _summarise(job, as_json)


@command.command("release")
@click.argument("site")
@click.option("--out", required=True, type=FOLDER, help="Where the job is kept.")
def release_site(site: str, out: Path) -> None:
    """Let SITE, quarantined after wrong answers, take part in a job again."""
    from ctflow_fed.federation import release

    release(out, site)
    click.echo(f"{site} is asked again from the next round on")


def _registered(nodes: Path) -> tuple[str, ...]:
    _need_cryptography()
    from ctflow_fed.deployment.registry import read_registry

    return tuple(read_registry(nodes).values())


def _submit(server: Path, settings: "FederationSettings") -> None:
    from ctflow_fed.deployment.submit import submit

    submit(server, settings)
    click.echo(
        f"submitted to {', '.join(settings.sites)}; rounds and model go to "
        f"{settings.out}",
        err=True,
    )


def _need_cryptography() -> None:
    if importlib.util.find_spec("cryptography") is None:
        raise MissingExtraError("cryptography", "federation")


def _say(played: "RoundRecord", rounds: int) -> None:
    """Show one line a round, and one more for each site that was left out."""
    click.echo(
        f"round {played.round} of {rounds}: {_losses(played, played)} with "
        f"{len(played.slices)} sites, {played.seconds:.1f} s",
        err=True,
    )
    _say_spent(played, err=True)
    for site, reason in played.refused.items():
        click.echo(f"  left out: {site}: {reason}", err=True)


def _say_spent(played: "RoundRecord", *, err: bool = False) -> None:
    """Show what the sites of a private job have spent of their budgets."""
    if played.epsilon:
        spent = ", ".join(f"{s} {each:.3f}" for s, each in played.epsilon.items())
        click.echo(f"  epsilon spent: {spent}", err=err)


def _losses(first: "RoundRecord", last: "RoundRecord") -> str:
    """Say how the loss went from before one round to after another, if it is told."""
    if math.isnan(last.loss_after):
        return "no loss told"
    return f"loss {first.loss_before:.4f} -> {last.loss_after:.4f}"


def _summarise(job: "Job", as_json: bool) -> None:
    records, model = job.ledger.records, job.ledger.model
    first, last, best = records[0], records[-1], job.ledger.best
    if as_json:
        result = {
            "model": str(model),
            "rounds": len(records),
            "best_round": best,
            "loss_first": first.to_json()["loss_before"],
            "loss_last": last.to_json()["loss_after"],
            "digest": records[job.chosen - 1].digest,
        }
        click.echo(json.dumps(result))
    else:
        lowest = f", lowest after round {best}" if best else ""
        click.echo(f"{len(records)} rounds done, {_losses(first, last)}{lowest}")
        click.echo(f"model: {model}")
