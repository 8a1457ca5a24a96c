"""``ctflow evaluate statistics | pooled``: fidelity over sites, from sums alone."""

from pathlib import Path

import click

from ctflow_fed.cli.options import FOLDER
from ctflow_fed.cli.results import result_options, show_results

__all__ = ["pooled", "statistics"]

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

VOLUMES = click.option(
    "--volumes",
    "of_volumes",
    default="haar",
    show_default=True,
    help="Extractor of features: haar, medicalnet:FILE, ctnet:FILE or ctclip:FILE; "
    "the same at all sites.",
)


@click.command()
@click.argument("folder", type=FOLDER)
@VOLUMES
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="The file to send; what was measured of each volume stays beside it.",
)
def statistics(folder: Path, of_volumes: str, out: Path) -> None:
    """Write sums of the features of a site's volumes in FOLDER, 20 at least.

    They hold no vector of a volume. Each file must be of another patient.
    """
    from ctflow_fed.evaluation.features import HaarSlices, extractor_named
    from ctflow_fed.evaluation.measuring import Lens
    from ctflow_fed.evaluation.pooled import write_statistics
    from ctflow_fed.evaluation.scans import scans_of

    lens = Lens(HaarSlices(), extractor_named(of_volumes, 3))
    scans = scans_of(folder)
    write_statistics(scans, lens, out.with_name("features"), out)
    click.echo(f"{out}: sums of {len(scans)} volumes")


@click.command()
@click.argument("synth", type=FOLDER)
@click.argument("sites", type=FILE, nargs=-1, required=True)
@VOLUMES
@click.option("--seed", default=0, show_default=True)
@result_options
def pooled(
    synth: Path,
    sites: tuple[Path, ...],
    of_volumes: str,
    seed: int,
    out: Path,
    as_json: bool,
) -> None:
    """Compare the volumes in SYNTH with those of all SITES, by the sums they sent."""
    from ctflow_fed.evaluation.features import HaarSlices, extractor_named
    from ctflow_fed.evaluation.measuring import Lens
    from ctflow_fed.evaluation.pooled import compare_with_sites
    from ctflow_fed.evaluation.scans import scans_of

    lens = Lens(HaarSlices(), extractor_named(of_volumes, 3))
    found = compare_with_sites(sites, scans_of(synth), lens, out / "features", seed)
    show_results(found, out, as_json)
