"""Options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

__all__ = [
    "FOLDER",
    "NEW_FOLDER",
    "PACKAGE",
    "PATIENTS",
    "TABLE",
    "policy_options",
    "privacy_options",
    "report_options",
    "start_options",
]

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

TABLE = click.Path(exists=True, dir_okay=False, path_type=Path)

PATIENTS = click.option(
    "--patients",
    type=TABLE,
    help="A table with the columns study (the name of a file) and patient; without it "
    "every file is a patient of its own.",
)

Function = TypeVar("Function", bound=Callable[..., Any])


def report_options(function: Function) -> Function:
    """Add the tables of reports of REAL and of SYNTH."""
    of_real = click.option(
        "--reports",
        type=TABLE,
        required=True,
        help="Of the scans in REAL: a table with the columns study (the name of a "
        "file) and report, as the intake takes it.",
    )
    of_synth = click.option(
        "--synth-reports",
        type=TABLE,
        help="The same of SYNTH; a set of ctflow augment has its own.",
    )
    return of_real(of_synth(function))


def policy_options(function: Function) -> Function:
    """Add the choices of `IntakePolicy`, none of which is made by default."""
    for name, choices, told in (
        ("synthetic", ("refuse", "accept"), "Volumes that say they are synthetic."),
        ("kernel", ("soft", "lung"), "Which of two equally thin series is preferred."),
        ("region", ("chest", "any"), "Take only what shows lungs, or any CT."),
        ("lossy", ("refuse", "accept"), "Lossily compressed slices."),
        ("uneven", ("refuse", "resample"), "Slices with uneven gaps."),
        ("tilt", ("refuse", "correct"), "Slices of a tilted gantry."),
    ):
        option = click.option(
            f"--{name}",
            type=click.Choice(choices),
            help=f"{told}  [default: {choices[0]}]",
        )
        function = option(function)
    return function


def privacy_options(function: Function) -> Function:
    """Add the options of private training."""
    epsilon = click.option(
        "--dp-epsilon",
        type=float,
        help="Train an adapter privately (DP-SGD by patient) until this much is spent.",
    )
    delta = click.option(
        "--dp-delta", type=float, help="... at this delta.  [default: 1e-5]"
    )
    noise = click.option(
        "--dp-noise",
        type=float,
        help="Standard deviation of the noise, in units of --dp-clip.  [default: 1.0]",
    )
    clip = click.option(
        "--dp-clip",
        type=float,
        help="Largest norm of what one patient adds to a step.  [default: 1.0]",
    )
    return epsilon(delta(noise(clip(function))))


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
