"""Options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

__all__ = ["FOLDER", "NEW_FOLDER", "start_options"]

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
NEW_FOLDER = click.Path(file_okay=False, path_type=Path)

Function = TypeVar("Function", bound=Callable[..., Any])


def start_options(function: Function) -> Function:
    """Add the options that say which weights training begins with."""
    preset = click.option(
        "--preset",
        default="tiny",
        show_default=True,
        type=click.Choice(["nano", "tiny", "S", "B", "L"]),
        help="Size of a fresh network.",
    )
    init = click.option(
        "--init",
        type=FOLDER,
        default=None,
        help="A model package to begin with, in place of a fresh network.",
    )
    seed = click.option("--seed", default=0, show_default=True)
    return preset(init(seed(function)))
