"""Scans and reports of a hospital -> a store of latents that names no patient."""

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from ctflow_fed.ct.book import Book, IntakeAccount, StudyOutcome
from ctflow_fed.ct.codec import codec_named, edges_of
from ctflow_fed.ct.desk import BEGUN, Decision, Desk, Entry, IntakeSettings
from ctflow_fed.ct.dicom.parsing import looks_like_dicom
from ctflow_fed.ct.privacy.key import SiteKey
from ctflow_fed.ct.report import encoder_named
from ctflow_fed.ct.report_table import normal_name
from ctflow_fed.ct.scan import is_scan, name_of
from ctflow_fed.ct.store import LatentStore, StoreHeader
from ctflow_fed.ct.table_files import TABLE_ENDINGS
from ctflow_fed.ct.tables import Tables
from ctflow_fed.errors import InputError, SettingsError, VolumeError
from ctflow_fed.processes import LOST, Pool, ThisProcess, Worker

__all__ = [
    "IntakeAccount",
    "IntakeSettings",
    "Pool",
    "StudyOutcome",
    "intake",
    "open_store",
]

TABLES = TABLE_ENDINGS | {".json", ".key", ".md", ".txt"}
"""What lies beside scans and is none."""

SECONDS = 600.0
"""What a worker may spend on a study; a thousand slices take about one minute."""


def intake(
    source: Path,
    reports: Path | Tables,
    out: Path,
    settings: IntakeSettings,
    *,
    pool: Pool | None = None,
    dry_run: bool = False,
) -> IntakeAccount:
    """Take every study of ``source`` that has a report into the store ``out``.

    An entry of the source is a folder, at any depth of which there is DICOM or there
    are volumes (NIfTI, NRRD, MetaImage), or it is such a volume. An entry that the
    table names is one study; a folder that it does not name may hold several, which the
    table calls by their StudyInstanceUID, accession number or file name. Loose DICOM
    files in the source make all of it one entry.

    A study that cannot be taken, or anything else but a table, is refused with a reason
    and the others go on, also one that takes a worker more than ten minutes. One that
    is in the store already is not read again, nor is one that was refused before it,
    its row of the table or the policy has changed (`Seen`), so that the same command
    resumes and takes what is new. Every study's account is kept in the store
    (`read_account`). A ``dry_run`` reads and judges all and writes nothing.

    A study is known by its name at the site and by a keyed hash of it in the store, and
    so is its patient if the table has a column ``patient``; the key is made beside the
    store and never leaves the site (`SiteKey`). What may tell who the patient is goes
    out of a report before it is encoded (`scrub_report`).

    ``reports`` is the table of reports, or the `Tables` that belong together.

    Raises ``InputError`` when ``source`` has no study, ``ReportTableError`` for a table
    that cannot be used, ``MismatchError`` when the store was made in another way, and
    ``IncompleteError`` when the account does not fit on the disk.
    """
    tables = reports if isinstance(reports, Tables) else Tables(reports)
    table = tables.read()
    entries = _entries(
        source, {os.path.realpath(path) for path in (out, *tables.paths)}
    )
    store = None if dry_run else open_store(out, settings)
    key = (
        SiteKey(secrets.token_bytes(32))
        if store is None
        else SiteKey.of(out, new=len(store) == 0)
    )
    book = Book(store, settings, table, key)
    new = [entry for entry in entries if not book.has(entry)]
    pool = pool or ThisProcess()
    seconds = None if isinstance(pool, ThisProcess) else SECONDS
    work = partial(Desk, None if dry_run else out, settings, table, key, seconds)
    done = _decided(pool, work, new, None if dry_run else out / BEGUN)
    for entry, decisions in tqdm(done, "intake", len(new), unit="entry", disable=None):
        book.enter(entry, decisions)
    return book.closed(entries)


def _decided(
    pool: Pool, work: Callable[[], Worker], entries: list[Entry], begun: Path | None
) -> Iterator[tuple[Entry, Sequence[Decision] | str]]:
    """Yield what is decided on each entry.

    One whose worker was lost is looked at again, without the study that ended it, as
    long as it is known which one did.
    """
    ended = _emptied(begun)
    while entries:
        lost = dict.fromkeys(entries, LOST)
        for (entry,), (decisions,) in pool.run(work, [(entry,) for entry in entries]):
            if not isinstance(decisions, str):
                del lost[entry]
                yield entry, decisions
        left = {mark.name for mark in begun.iterdir()} if begun else set()
        if left == ended:
            yield from lost.items()
            return
        entries, ended = list(lost), left


def _emptied(begun: Path | None) -> set[str]:
    """Forget which studies an earlier run was reading when it ended."""
    if begun is not None:
        shutil.rmtree(begun, ignore_errors=True)
        begun.mkdir(parents=True)
    return set()


def open_store(out: Path, settings: IntakeSettings) -> LatentStore:
    """Make an empty store for what these settings give, or open the one there is."""
    codec, size = codec_named(settings.codec), settings.image_size
    if size % (2 * codec.factor):
        raise SettingsError(
            f"expected an image size in multiples of {2 * codec.factor}, got {size}"
            "; choose another, because the network takes latents two by two"
        )
    side = size // codec.factor
    encoder_id = encoder_named(settings.encoder).encoder_id
    header = StoreHeader(codec.codec_id, encoder_id, codec.channels, side, side)
    edges = edges_of(codec, size)
    return LatentStore.create(out, header, edges, codec.channel_weights)


def _entries(source: Path, others: set[str]) -> list[Entry]:
    """Name every entry of the source that is no table, in the order of the names.

    ``others`` are the store and the table of reports, which may lie there too.
    """
    try:
        children = sorted(source.iterdir())
    except OSError:
        children = []
    entries = []
    for path in children:
        if path.name.startswith(".") or os.path.realpath(path) in others:
            continue
        if is_scan(path) or path.suffix.lower() not in TABLES:
            entries.append(Entry(normal_name(name_of(path)), path))
    if any(_is_loose_slice(entry.path) for entry in entries):
        return [Entry(normal_name(source.resolve().name), source)]
    if not any(is_scan(entry.path) for entry in entries):
        raise InputError(
            "expected folders of DICOM files or volumes in the source, found none; "
            "give the folder that holds one folder or one volume a study"
        )
    return entries


def _is_loose_slice(path: Path) -> bool:
    try:
        return path.is_file() and looks_like_dicom(path)
    except VolumeError:
        return False
