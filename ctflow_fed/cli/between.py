"""``ctflow between``: a real volume with finer slices."""

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


@click.command("between")
@click.option(
    "--factor", default=2, show_default=True, help="How many times finer the slices."
)
@completing_options
def command(
    model: Path,
    adapter: Path | None,
    scan: Path,
    report: str,
    factor: int,
    seed: int,
    out: Path,
    **settings: Any,
) -> None:
    """Draw slices between those of a real VOLUME with MODEL.

    VOLUME is a NIfTI file or a folder of DICOM. Its slices are brought to the pixels of
    the model and then stay as they are.
    """
    real = read_scan(scan, out)
    sampler = open_sampler(model, adapter, **settings)
    whole = sampler.between(real, report, factor=factor, seed=seed)
    write_completed(whole, len(real.hu), out)
