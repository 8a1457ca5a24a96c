"""``ctflow federation site``: what a hospital runs, allows and looks up."""

from pathlib import Path

import click

from ctflow_fed.cli.options import FOLDER
from ctflow_fed.errors import SettingsError

__all__ = ["command"]

KIT = click.option("--kit", required=True, type=FOLDER, help="The folder of the kit.")


@click.group("site", invoke_without_command=True)
@click.option("--kit", type=FOLDER, help="The folder of the kit.")
@click.option("--store", type=FOLDER, help="A store made by `ctflow intake`.")
@click.option("--port", default=9094, show_default=True, help="On loopback.")
@click.option("--dry-run", is_flag=True, help="Show what would be sent; send nothing.")
@click.pass_context
def command(
    context: click.Context,
    kit: Path | None,
    store: Path | None,
    port: int,
    dry_run: bool,
) -> None:
    """Take part in a federation until Ctrl-C or SIGTERM, as site.toml allows."""
    if context.invoked_subcommand is not None:
        return
    if kit is None or store is None:
        raise click.UsageError("say --kit and --store to take part")
    from ctflow_fed.deployment.site.kit import take_part

    def say(line: str) -> None:
        click.echo(line, err=True)

    take_part(kit, store, port, say, dry_run=dry_run)


@command.command("approve")
@KIT
@click.argument("bundle", required=False, type=click.Path(exists=True, path_type=Path))
def approve(kit: Path, bundle: Path | None) -> None:
    """Let BUNDLE run here: a .fab file, or a checkout.

    Without BUNDLE it is the one that the programs of this installation make. A
    signature lies beside a file, with .sig after its name.
    """
    from ctflow_fed.deployment.bundle import build_bundle, programs_folder
    from ctflow_fed.deployment.site.approval import approve as let_run

    signature = None
    if bundle is None or bundle.is_dir():
        programs = bundle or programs_folder()
        if not all((programs / name).is_dir() for name in ("server", "client")):
            raise SettingsError("expected a checkout with `server` and `client` in it")
        content = build_bundle(programs)
    else:
        content, beside = bundle.read_bytes(), bundle.with_name(f"{bundle.name}.sig")
        signature = beside.read_bytes() if beside.exists() else None
    click.echo(f"approved: {let_run(kit, content, signature)}")


@command.command("audit")
@KIT
@click.option("--verify", is_flag=True, help="Only tell whether the log is whole.")
def audit(kit: Path, verify: bool) -> None:
    """Show what came, what left and what was refused."""
    from ctflow_fed.deployment.site.audit import AuditLog

    log = AuditLog(kit)
    if verify:
        head = log.verify()
        click.echo(f"{head.sequence} lines, whole, head {head.digest}")
        return
    for moment, each in log.entries():
        words = [moment, each.event, each.kind, f"round {each.round}", each.decision]
        tail = [f"{each.bytes} bytes", each.bundle[:12], each.digest[:12], each.reason]
        click.echo("  ".join(word for word in [*words, *tail] if word))
