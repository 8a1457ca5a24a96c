"""``ctflow sample``: one volume from a report."""

from pathlib import Path
from typing import Any

import click

from ctflow_fed.cli.drawing import (
    check_nifti,
    drawing_options,
    open_sampler,
    write_synthetic,
)

__all__ = ["command"]


def _check_out(ctx: click.Context, param: click.Parameter, value: Path) -> Path:
    """Refuse another suffix, or a folder with files, before anything is drawn."""
    if value.suffix:
        return check_nifti(ctx, param, value)
    if value.exists() and (not value.is_dir() or any(value.iterdir())):
        raise click.BadParameter("expected a new or empty folder for DICOM")
    return value


@click.command("sample")
@click.option("--report", required=True, help='As text; "" draws without a report.')
@click.option("--slices", default=64, show_default=True, help="Slices of the volume.")
@click.option(
    "--slice-mm",
    type=float,
    default=None,
    help="Their spacing; by default the volume has the height of the training data's.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    callback=_check_out,
    help="The NIfTI file to write (.nii.gz), or a folder for a DICOM series.",
)
@drawing_options
def command(
    model: Path,
    adapter: Path | None,
    report: str,
    slices: int,
    slice_mm: float | None,
    seed: int,
    out: Path,
    **settings: Any,
) -> None:
    """Draw one volume from a report with MODEL, a package or base, the shipped one.

    The same command draws the same volume.
    """
    from ctflow_fed.sampling import VolumeRequest

    request = VolumeRequest(report=report, slices=slices, seed=seed, slice_mm=slice_mm)
    (volume,) = open_sampler(model, adapter, **settings).sample([request])
    write_synthetic(volume, out, seed)
