"""``ctflow model import | merge``."""

from pathlib import Path

import click

from ctflow_fed.cli.options import FOLDER, NEW_FOLDER, PACKAGE

__all__ = ["command"]


@click.group("model")
def command() -> None:
    """Import the released CTFlow network; merge adapters."""


@command.command("import")
@click.argument("published", type=FOLDER)
@click.argument("out", type=NEW_FOLDER)
@click.option(
    "--codec",
    help="Bind the model to a codec: released: and a folder or hub id of FLUX's "
    "autoencoder; by default to none.",
)
@click.option(
    "--encoder",
    help="Bind it to a report encoder: class: and a folder of CT-CLIP's text tower; by "
    "default to none.",
)
def import_(published: Path, out: Path, codec: str | None, encoder: str | None) -> None:
    """Make a model package OUT of the released checkpoint in PUBLISHED.

    PUBLISHED holds config.json and diffusion_pytorch_model.safetensors. The network was
    trained with FLUX's latents of images in [0, 1] and with CT-CLIP's class token:
    sample with the codec released:FOLDER and the encoder class:FOLDER.
    """
    from ctflow_fed.ct.codec import codec_named
    from ctflow_fed.ct.report import encoder_named
    from ctflow_fed.model import import_published

    digest = import_published(
        published,
        out,
        codec_id=codec_named(codec).codec_id if codec else "",
        encoder_id=encoder_named(encoder).encoder_id if encoder else "",
    )
    click.echo(f"model: {out}, weights {digest[:12]}")


@command.command("merge")
@click.argument("model", type=PACKAGE)
@click.argument("adapter", type=FOLDER)
@click.argument("out", type=NEW_FOLDER)
def merge(model: Path, adapter: Path, out: Path) -> None:
    """Make a model package OUT of MODEL with the ADAPTER that was trained for it.

    MODEL is a package, or base for the shipped one.
    """
    from ctflow_fed.errors import SettingsError
    from ctflow_fed.model import load_package, save_package
    from ctflow_fed.training import load_adapter

    if out.exists() and any(out.iterdir()):
        raise SettingsError(
            "a model is written into a new or empty folder, and this one is not; "
            "choose another, or remove what is there"
        )
    merged = load_adapter(load_package(model), adapter)
    digest = save_package(out, merged.network, merged.provenance)
    click.echo(f"model: {out}, weights {digest[:12]}")
