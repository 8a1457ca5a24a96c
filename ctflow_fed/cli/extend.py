"""``ctflow extend``: a real volume, continued."""

from pathlib import Path
from typing import Any

import click

from ctflow_fed.cli.drawing import (
    completing_options,
    open_sampler,
    read_scan,
    write_completed,
)

__all__ = ["command"]


@click.command("extend")
@click.option("--below", default=0, show_default=True, help="Slices to draw under it.")
@click.option("--above", default=0, show_default=True, help="Slices to draw over it.")
@completing_options
def command(
    model: Path,
    adapter: Path | None,
    scan: Path,
    report: str,
    below: int,
    above: int,
    seed: int,
    out: Path,
    **settings: Any,
) -> None:
    """Continue a real VOLUME, a NIfTI file or a folder of DICOM, with MODEL.

    Its slices are brought to the pixels of the model and then stay as they are.
    """
    real = read_scan(scan, out)
    sampler = open_sampler(model, adapter, **settings)
    whole = sampler.extend(real, report, below=below, above=above, seed=seed)
    write_completed(whole, len(real.hu), out)
