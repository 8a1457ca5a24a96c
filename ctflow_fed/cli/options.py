"""Options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

__all__ = ["FOLDER", "NEW_FOLDER", "PACKAGE", "start_options"]

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
NEW_FOLDER = click.Path(file_okay=False, path_type=Path)


class _Package(click.ParamType[Path]):
    """The folder of a model package, or ``base`` for the one that is shipped."""

    name = "model"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Path:
        if value == "base":
            from ctflow_fed.model import package_folder

            return package_folder(value)
        folder: Path = FOLDER.convert(value, param, ctx)
        return folder


PACKAGE = _Package()

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
        type=PACKAGE,
        default=None,
        help="A model package to begin with, or base for the shipped one, in place of "
        "a fresh network.",
    )
    seed = click.option("--seed", default=0, show_default=True)
    return preset(init(seed(function)))
