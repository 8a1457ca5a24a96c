"""``ctflow intake``: scans and reports -> a store of latents."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ctflow_fed.cli.actors import actors
from ctflow_fed.cli.options import policy_options
from ctflow_fed.errors import IncompleteError, StoreError

if TYPE_CHECKING:
    from ctflow_fed.ct.intake import IntakeAccount, StudyOutcome
    from ctflow_fed.ct.policy import IntakePolicy
    from ctflow_fed.ct.tables import Tables
    from ctflow_fed.processes import Pool

__all__ = ["command"]


@click.command("intake")
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--reports",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV with a column study and findings, impression or report; perhaps patient, "
    "age, sex. TSV, JSON lines and Excel too.",
)
@click.option(
    "--metadata",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CT-RATE's CSV of metadata: spacing, rescale, age and sex of each volume.",
)
@click.option(
    "--labels",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A CSV with a column study and CT-RATE's 18, in place of what reports say.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the store; an existing one goes on.",
)
@click.option(
    "--image-size", default=256, show_default=True, help="Pixels along each side."
)
@click.option(
    "--codec",
    default="haar",
    show_default=True,
    help="haar, or a folder or hub id of FLUX's autoencoder.",
)
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    help="Where slices are encoded.  [default: cuda for FLUX's where there is one]",
)
@click.option(
    "--encoder",
    default="hashing",
    show_default=True,
    help="hashing, or a folder of CT-CLIP's text tower.",
)
@click.option(
    "--quality",
    type=click.Path(dir_okay=False, path_type=Path),
    help="An HTML page of what came in, with pictures; the same as JSON beside it. "
    "Needs the extra `report`.",
)
@click.option(
    "--audit",
    "is_audit",
    is_flag=True,
    help="Take nothing: search the store for what tells the patients of SOURCE.",
)
@click.option(
    "--logs",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="With --audit, a file or folder of logs to search as well.",
)
@click.option(
    "--policy",
    "policy_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TOML with the six choices below; an option goes before it.",
)
@policy_options
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=None,
    help="Processes that read and encode, each ended that is ten minutes at one study; "
    "1 is this process alone, without that limit.  [default: one a core]",
)
@click.option("--ray", is_flag=True, help="Work in the actors of a Ray instead.")
@click.option("--address", default=None, help="With --ray, the cluster to join.")
@click.option("--dry-run", is_flag=True, help="Read and judge all, write nothing.")
def command(
    source: Path,
    reports: Path,
    metadata: Path | None,
    labels: Path | None,
    out: Path,
    image_size: int,
    codec: str,
    device: str | None,
    encoder: str,
    quality: Path | None,
    is_audit: bool,
    logs: tuple[Path, ...],
    policy_file: Path | None,
    workers: int | None,
    ray: bool,
    address: str | None,
    dry_run: bool,
    **choices: str | None,
) -> None:
    """Take CT and reports into a store of latents.

    SOURCE holds folders of DICOM or volumes, at any depth, and volumes (NIfTI, NRRD,
    MHA). A study is named by its folder or file, its StudyInstanceUID or its accession
    number.

    Every study is taken, corrected or refused, with a reason; the same command goes on
    where it was stopped and takes what is new. Names stand on this screen only,
    account.jsonl in the store has none.
    """
    from ctflow_fed.ct.tables import Tables

    tables = Tables(reports, metadata, labels)
    if is_audit:
        _audit(source, tables, (out, *logs))
        return
    from ctflow_fed.ct.intake import IntakeSettings, intake

    if quality is not None:
        from ctflow_fed.report.rendering import check_packages

        check_packages()
    policy = _policy(policy_file, choices)
    device = device or _device_for(codec)
    settings = IntakeSettings(image_size, codec, encoder, policy, device)
    pool = actors(workers, ray, address) or _pool(workers)
    account = intake(source, tables, out, settings, pool=pool, dry_run=dry_run)
    _show(account)
    if quality is not None:
        from ctflow_fed.report.quality import quality_of, write_quality

        write_quality(quality, quality_of(out, codec))
    if not account.taken:
        raise IncompleteError(
            f"expected studies to take, but all {len(account.refused)} were refused; "
            "the reasons stand above and in account.jsonl"
        )


def _device_for(codec: str) -> str:
    """Return where a codec runs best: the embedded one costs less than the way."""
    from ctflow_fed.model.device import default_device

    return "cpu" if codec == "haar" else default_device().type


def _policy(file: Path | None, choices: dict[str, str | None]) -> "IntakePolicy":
    """Return the policy of the file, with the choices made by options."""
    from dataclasses import replace

    from ctflow_fed.ct.policy import IntakePolicy

    policy = IntakePolicy() if file is None else IntakePolicy.from_toml(file)
    made: Any = {name: choice for name, choice in choices.items() if choice}
    return replace(policy, **made)


def _pool(workers: int | None) -> "Pool":
    """Return who of this machine reads and encodes."""
    from ctflow_fed.machine import cores
    from ctflow_fed.processes import Processes, ThisProcess

    return ThisProcess() if workers == 1 else Processes(workers or cores())


def _show(account: "IntakeAccount") -> None:
    """Print one line a study, in the order of the source, and the sums."""
    width = max(len(study.name) for study in account.studies)
    for position, study in enumerate(account.studies, start=1):
        name = "".join(char if char.isprintable() else "?" for char in study.name)
        click.echo(f"{position:4d}  {name:<{width}}  {_outcome(study)}")
    new = sum(study.new for study in account.taken)
    click.echo(
        f"{new} taken, {len(account.taken) - new} in the store already, "
        f"{len(account.refused)} refused; "
        f"{account.reports_without_scan} reports without a scan"
    )


def _outcome(study: "StudyOutcome") -> str:
    """Say what became of a study."""
    if not study.new and not study.account.refused:
        return "in the store already"
    verdict, reason = study.account.verdict, study.account.reason
    return f"{verdict}: {reason}" if reason else verdict


def _audit(source: Path, tables: "Tables", places: tuple[Path, ...]) -> None:
    """Print what was searched for and found, as numbers; a hit is an error."""
    from ctflow_fed.ct.privacy.audit import audit

    found = audit(source, tables, places)
    for kind, count in sorted(found.searched.items()):
        click.echo(f"{kind:<10}{count:>9} searched for{found.found[kind]:>9} found")
    click.echo(
        f"{found.headers} files of the source, {found.unsearched} values left out that "
        f"tell nobody apart; {found.files} files searched, {found.bytes / 1e6:.1f} MB"
    )
    if found.hits:
        raise StoreError(
            f"expected no trace of a patient, found {found.hits} in {found.leaking} "
            "files; let nothing of it leave, and take the studies in again into a new "
            "folder"
        )
