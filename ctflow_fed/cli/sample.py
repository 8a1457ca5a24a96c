"""``ctflow sample``: one volume from a report."""

from pathlib import Path

import click

from ctflow_fed.cli.options import PACKAGE

__all__ = ["command"]


def _check_suffix(
    ctx: click.Context,
    param: click.Parameter,
    value: Path,
) -> Path:
    """Refuse another suffix before anything is drawn."""
    if not value.name.endswith((".nii", ".nii.gz")):
        raise click.BadParameter("the name must end in .nii or .nii.gz")
    return value


@click.command("sample")
@click.argument("model", type=PACKAGE)
@click.option("--report", required=True, help="Findings and impression, as text.")
@click.option("--slices", default=64, show_default=True, help="Slices of the volume.")
@click.option(
    "--slice-mm",
    type=float,
    default=None,
    help="Their spacing; by default the volume has the height of the training data's.",
)
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_check_suffix,
    help="The NIfTI file to write (.nii.gz).",
)
@click.option("--steps", default=12, show_default=True, help="Heun steps a clip.")
@click.option("--codec", default="haar", show_default=True, help="haar, or a folder.")
@click.option(
    "--encoder", default="hashing", show_default=True, help="hashing, or a folder."
)
def command(
    model: Path,
    report: str,
    slices: int,
    slice_mm: float | None,
    seed: int,
    out: Path,
    steps: int,
    codec: str,
    encoder: str,
) -> None:
    """Draw one volume from a report with MODEL, a package or base, the shipped one.

    The same command draws the same volume.
    """
    from ctflow_fed.ct.codec import codec_named
    from ctflow_fed.ct.nifti import write_nifti
    from ctflow_fed.ct.report import encoder_named
    from ctflow_fed.model import load_package
    from ctflow_fed.sampling import SampleSettings, VolumeRequest, VolumeSampler

    sampler = VolumeSampler(
        load_package(model),
        codec_named(codec),
        encoder_named(encoder),
        SampleSettings(steps=steps),
    )
    request = VolumeRequest(report=report, slices=slices, seed=seed, slice_mm=slice_mm)
    (volume,) = sampler.sample([request])
    write_nifti(volume, out, description="SYNTHETIC CT - NOT FOR DIAGNOSTIC USE")
    shape = " x ".join(str(length) for length in volume.hu.shape)
    click.echo(f"{out}: {shape} voxels (slices, rows, columns)")
