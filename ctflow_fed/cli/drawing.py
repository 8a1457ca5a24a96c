"""What the commands that draw volumes have in common."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ctflow_fed.cli.options import FOLDER, PACKAGE
from ctflow_fed.errors import SettingsError

if TYPE_CHECKING:
    from ctflow_fed.ct.volume import CTVolume
    from ctflow_fed.sampling import VolumeSampler

__all__ = [
    "check_nifti",
    "completing_options",
    "drawing_options",
    "open_sampler",
    "read_scan",
    "sampler_options",
    "write_completed",
    "write_synthetic",
]

USE = "NOT FOR DIAGNOSTIC USE"

Function = TypeVar("Function", bound=Callable[..., Any])


class _Setting(click.Option):
    """An option whose default is that of the sampler, read when it is needed.

    To import the sampler takes too long for commands that do not draw.
    """

    def get_default(self, ctx: click.Context, call: bool = True) -> Any:
        from ctflow_fed.sampling import SampleSettings

        return getattr(SampleSettings, str(self.name))


PLAN: dict[str, tuple[type, str]] = {
    "--plan": (str, "anchored, autoregressive or ctflow; MODEL's own by default."),
    "--overlap": (
        int,
        "Slices that an autoregressive clip shares with the one before.",
    ),
}

SETTINGS: dict[str, tuple[type, str]] = {
    "--steps": (int, "Steps of the solver for a clip."),
    "--solver": (str, "euler, ab2, or heun, which takes twice the time."),
    "--guidance": (float, "Above 1: closer to the report, and slower."),
    "--batch-clips": (int, "Clips of 16 slices drawn at once; bounds memory."),
    "--clip-slices": (int, "Slices that are drawn together at most."),
    "--precision": (str, "float32, bfloat16, or auto: bfloat16 where it pays."),
}
"""The settings of the sampler that a user may choose, wherever volumes are drawn."""


def sampler_options(function: Function) -> Function:
    """Add the settings of the sampler, the codec and the report encoder."""
    return _with_settings(function, PLAN | SETTINGS)


def drawing_options(function: Function) -> Function:
    """Add what is asked of a command that draws a volume."""
    return _with_model(sampler_options(function))


def completing_options(function: Function) -> Function:
    """Add what is asked of a command that draws slices of a real volume."""
    scan = click.argument(
        "scan", metavar="VOLUME", type=click.Path(exists=True, path_type=Path)
    )
    report = click.option("--report", default="", help="Findings and impression.")
    out = click.option(
        "--out",
        required=True,
        type=click.Path(path_type=Path),
        callback=check_nifti,
        help="The NIfTI file to write (.nii.gz).",
    )
    return report(out(_with_model(scan(_with_settings(function, SETTINGS)))))


def check_nifti(ctx: click.Context, param: click.Parameter, value: Path) -> Path:
    """Refuse what is no name of a NIfTI file before anything is drawn."""
    if not value.name.endswith((".nii", ".nii.gz")) or value.is_dir():
        raise click.BadParameter("expected the name of a file in .nii or .nii.gz")
    return value


def open_sampler(
    model: Path, adapter: Path | None, codec: str, encoder: str, **settings: Any
) -> "VolumeSampler":
    """Load a model, and the adapter on it if there is one."""
    from ctflow_fed.ct.codec import codec_named
    from ctflow_fed.ct.report import encoder_named
    from ctflow_fed.model import load_package
    from ctflow_fed.sampling import SampleSettings, VolumeSampler
    from ctflow_fed.training import load_adapter

    package = load_package(model)
    if adapter is not None:
        package = load_adapter(package, adapter)
    if not package.provenance.codec_id:
        click.echo(
            f"note: the model names neither its codec nor its report encoder; drawn "
            f"with --codec {codec} and --encoder {encoder}",
            err=True,
        )
    return VolumeSampler(
        package,
        codec_named(codec),
        encoder_named(encoder),
        SampleSettings(**settings),
    )


def read_scan(path: Path, out: Path) -> "CTVolume":
    """Read a NIfTI file, or the DICOM series in a folder; it must not be ``out``."""
    from ctflow_fed.ct.dicom import read_series
    from ctflow_fed.ct.nifti import read_nifti

    if out.exists() and out.samefile(path):
        raise SettingsError(
            "expected another file to write than the scan that is read; choose a new "
            "name, so that the scan stays as it is"
        )
    return read_series(path) if path.is_dir() else read_nifti(path)


def write_synthetic(volume: "CTVolume", out: Path, seed: int) -> None:
    """Write a drawn volume: NIfTI by its suffix, otherwise a folder of DICOM."""
    from ctflow_fed.ct.dicom import SeriesTags, write_series
    from ctflow_fed.ct.nifti import write_nifti

    if out.suffix:
        write_nifti(volume, out, description=f"SYNTHETIC CT - {USE}")
    else:
        name = hashlib.sha256(volume.hu.tobytes()).hexdigest()[:16]
        write_series(volume, out, seed=seed, tags=SeriesTags(f"SYN-{name}"))
    _tell(volume, out)


def write_completed(volume: "CTVolume", real_slices: int, out: Path) -> None:
    """Write a volume of which only so many slices are real.

    It is no DICOM series, for those that we write say that no patient was scanned.
    """
    from ctflow_fed.ct.nifti import write_nifti

    drawn = f"{len(volume.hu) - real_slices} of {len(volume.hu)} slices"
    write_nifti(volume, out, description=f"SYNTHETIC CT ({drawn}) - {USE}")
    _tell(volume, out)


def _tell(volume: "CTVolume", out: Path) -> None:
    shape = " x ".join(str(length) for length in volume.hu.shape)
    told = "; ".join([f"{shape} voxels (slices, rows, columns)", *volume.notes])
    click.echo(f"{out}: {told}")


def _with_model(function: Function) -> Function:
    model = click.argument("model", type=PACKAGE)
    adapter = click.option("--adapter", type=FOLDER, help="An adapter made for MODEL.")
    seed = click.option("--seed", default=0, show_default=True)
    return model(adapter(seed(function)))


def _with_settings(
    function: Function, settings: dict[str, tuple[type, str]]
) -> Function:
    codec = click.option(
        "--codec",
        default="haar",
        show_default=True,
        help="haar, FOLDER, or released:FOLDER.",
    )
    encoder = click.option(
        "--encoder",
        default="hashing",
        show_default=True,
        help="hashing, FOLDER, or class:FOLDER.",
    )
    function = codec(encoder(function))
    for name, (kind, text) in reversed(settings.items()):
        setting = click.option(
            name, type=kind, cls=_Setting, show_default=True, help=text
        )
        function = setting(function)
    return function
