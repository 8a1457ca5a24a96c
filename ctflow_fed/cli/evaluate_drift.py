"""``ctflow evaluate drift``."""

from pathlib import Path
from typing import Any

import click

from ctflow_fed.cli.drawing import open_sampler, sampler_options
from ctflow_fed.cli.options import FOLDER, PACKAGE
from ctflow_fed.cli.results import result_options, show_results
from ctflow_fed.errors import SettingsError

__all__ = ["drift"]


@click.command()
@click.argument("real", type=FOLDER)
@click.argument("drawn", type=FOLDER, required=False)
@click.option(
    "--model",
    type=PACKAGE,
    help="Draw with it, a package or base, in place of the volumes in DRAWN.",
)
@click.option(
    "--organs",
    type=FOLDER,
    nargs=2,
    metavar="REAL_MAPS DRAWN_MAPS",
    help="Organs of real and of drawn volumes, each a number, as NIfTI maps by any "
    "segmenter; their order is compared.",
)
@click.option("--adapter", type=FOLDER, help="An adapter made for the model.")
@click.option(
    "--length",
    "lengths",
    multiple=True,
    type=int,
    default=(64, 128, 192, 256),
    show_default=True,
    help="Slices to draw; repeatable.",
)
@click.option(
    "--mode",
    "modes",
    multiple=True,
    default=("full-body", "given-head", "teacher-forced"),
    show_default=True,
    help="How to draw; repeatable.",
)
@click.option("--seeds", default=2, show_default=True, help="Of each of five prompts.")
@click.option("--seed", default=0, show_default=True)
@sampler_options
@result_options
def drift(
    real: Path,
    drawn: Path | None,
    model: Path | None,
    organs: tuple[Path, Path] | None,
    adapter: Path | None,
    lengths: tuple[int, ...],
    modes: tuple[str, ...],
    seeds: int,
    seed: int,
    out: Path,
    as_json: bool,
    **settings: Any,
) -> None:
    """Follow volumes from the lowest slice to the highest, beside those in REAL.

    They are the NIfTI volumes in DRAWN, by any generator, or --model draws them: whole,
    above real slices, and clip by clip from the real one below.
    """
    from ctflow_fed.evaluation.drift import (
        Drawn,
        ModeSettings,
        draw_modes,
        measure_drift,
        prompts_of,
    )
    from ctflow_fed.evaluation.scans import scans_of

    if (drawn is None) == (model is None):
        raise click.UsageError("expected either DRAWN or --model, got both or neither")
    if organs and drawn is None:
        raise click.UsageError("--organs are those of the volumes in DRAWN")
    real_maps, own_maps = map(scans_of, organs) if organs else ([], [])
    if organs and not (real_maps and own_maps):
        raise SettingsError(
            "expected NIfTI maps of organs in both folders, got none in one of them; "
            "name the folders of the maps"
        )
    known = scans_of(real)
    if model is None:
        sets = [Drawn("", scans_of(drawn), organs=own_maps)] if drawn else []
    else:
        chosen = ModeSettings(lengths=lengths, modes=modes, seeds=seeds, seed=seed)
        sampler = open_sampler(model, adapter, **settings)
        sets = draw_modes(sampler, known, prompts_of(), out / "drawn", chosen)
    cache = out / "features"
    found = measure_drift(known, sets, cache, organs=real_maps, seed=seed)
    show_results(found, out, as_json)
