"""The command line: ``ctflow NOUN ...``, one module a command.

A command module imports what it runs inside its function, so that ``ctflow --help``
answers at once.
"""

import importlib
import sys

import click

from ctflow_fed import __version__
from ctflow_fed.errors import CTFlowError

__all__ = ["cli", "main"]

COMMANDS = {
    "demo": "Three phantom hospitals, from scans to a utility report on one page.",
    "phantom": "Write phantom studies as DICOM or NIfTI, with reports.",
    "intake": "Take CT and reports into a store of latents.",
    "train": "Train on one store, without a federation.",
    "model": "Import the released CTFlow network; merge adapters.",
    "sample": "Draw one volume from a report.",
    "extend": "Draw slices under and over a real volume.",
    "between": "Draw slices between those of a real volume.",
    "federation": "Train one generator at several sites.",
    "augment": "Draw labelled synthetic volumes for a training set.",
    "evaluate": "Say of synthetic volumes what they are worth.",
    "report": "Any run on one HTML page.",
}
"""Every command and its line in the help; `ctflow_fed.cli.NAME` holds it."""


class _LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"ctflow_fed.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ctflow")
def cli() -> None:
    """Teach a chest-CT generator across hospitals; draw labelled synthetic CT."""


def main() -> None:
    """Run ``ctflow``; an expected error is one sentence on stderr and exit code 1."""
    try:
        cli(standalone_mode=False)
    except CTFlowError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    except click.ClickException as error:
        click.echo(f"error: {error.format_message()}", err=True)
        sys.exit(1)
    except OSError as error:
        reason = error.strerror or "the system gave no reason"
        click.echo(f"error: a file cannot be read or written: {reason}", err=True)
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped; repeat the command to go on", err=True)
        sys.exit(130)
