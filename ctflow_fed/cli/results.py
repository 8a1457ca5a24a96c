"""Where the results of an evaluation go, and how they are shown."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ctflow_fed.cli.options import NEW_FOLDER

if TYPE_CHECKING:
    from ctflow_fed.evaluation import Evaluation, Interval

__all__ = ["result_options", "show_results"]

Function = TypeVar("Function", bound=Callable[..., Any])


def result_options(function: Function) -> Function:
    """Add where results go, and how they are shown."""
    out = click.option(
        "--out",
        type=NEW_FOLDER,
        required=True,
        help="For results, and for what was measured of each volume.",
    )
    as_json = click.option("--json", "as_json", is_flag=True, help="For machines.")
    return out(as_json(function))


def show_results(found: "Evaluation", out: Path, as_json: bool, name: str = "") -> None:
    """Write the results, under their kind or a ``name``, and print them, worst last."""
    found.save(out / f"{name or found.kind}.json")
    if as_json:
        click.echo(json.dumps(found.to_json(), sort_keys=True, allow_nan=False))
        return
    rows = [("", "", "value", "floor", "ceiling", "")]
    rows += [
        (
            figure.name,
            figure.part,
            _number(figure.value) + (f" {figure.unit}" if figure.unit else ""),
            _number(figure.floor),
            _number(figure.ceiling),
            figure.verdict,
        )
        for figure in found.figures
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, strict=True)
        click.echo("  ".join(f"{cell:<{width}}" for cell, width in cells).rstrip())
    verdicts = [figure.verdict for figure in found.figures]
    counts = {word: verdicts.count(word) for word in ("pass", "fail", "not measured")}
    told = ", ".join(f"{count} {word}" for word, count in counts.items())
    click.echo(f"{told}; n, conventions and methods: {out / (found.kind + '.json')}")


def _number(interval: "Interval | None") -> str:
    """Write a number with its interval, three digits each."""
    if interval is None:
        return "-"
    return f"{interval.value:.3g} [{interval.low:.3g}, {interval.high:.3g}]"
