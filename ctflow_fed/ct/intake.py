"""Scans and reports of a hospital -> a store of latents that names no patient."""

import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from tqdm import tqdm

from ctflow_fed.ct.account import StudyAccount, note, read_account
from ctflow_fed.ct.codec import codec_named, edges_of
from ctflow_fed.ct.desk import Decision, Desk, Entry, IntakeSettings
from ctflow_fed.ct.dicom.parsing import looks_like_dicom
from ctflow_fed.ct.privacy.key import SiteKey
from ctflow_fed.ct.report import encoder_named
from ctflow_fed.ct.report_table import Report, normal_name
from ctflow_fed.ct.scan import is_scan, name_of
from ctflow_fed.ct.store import LatentStore, StoreHeader
from ctflow_fed.ct.table_files import TABLE_ENDINGS
from ctflow_fed.ct.tables import Tables
from ctflow_fed.errors import IncompleteError, InputError, SettingsError, VolumeError
from ctflow_fed.processes import ThisProcess, Worker

__all__ = ["IntakeAccount", "IntakeSettings", "Pool", "StudyOutcome", "intake"]

TABLES = TABLE_ENDINGS | {".json", ".key", ".md", ".txt"}
"""What lies beside scans and is none."""


@runtime_checkable
class Pool(Protocol):
    """Who looks at the entries: this process, processes of this machine, or a Ray."""

    def run(
        self, make_worker: Callable[[], Worker], batches: Sequence[Sequence[Any]]
    ) -> Iterator[tuple[Sequence[Any], list[Any]]]:
        """Yield each batch with a result for each part of it, in any order."""
        ...


@dataclass(frozen=True)
class StudyOutcome:
    """One study of the source and its account.

    ``name`` is that of the source, for the site's own screen; it is never saved.
    ``new`` tells a study that was taken now from one that was in the store before.
    """

    name: str
    account: StudyAccount
    new: bool = False

    @property
    def reason(self) -> str:
        """Why the study was refused or corrected."""
        return self.account.reason


@dataclass(frozen=True)
class IntakeAccount:
    """Every study of a source, in the order of their names."""

    studies: tuple[StudyOutcome, ...]
    reports_without_scan: int

    @property
    def taken(self) -> tuple[StudyOutcome, ...]:
        """The studies that are in the store now."""
        return tuple(study for study in self.studies if not study.account.refused)

    @property
    def refused(self) -> tuple[StudyOutcome, ...]:
        """The studies that are not."""
        return tuple(study for study in self.studies if study.account.refused)


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
    and the others go on; one that is in the store already is not read again, so that
    the same command resumes and takes what is new. Every study's account is kept in
    the store (`read_account`). A ``dry_run`` reads and judges all and writes nothing.

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
    store = None if dry_run else _open_store(out, settings)
    key = (
        SiteKey(secrets.token_bytes(32))
        if store is None
        else SiteKey.of(out, new=len(store) == 0)
    )
    book = _Book(store, key, table)
    batches = [(entry,) for entry in entries if not book.has(entry)]
    work = partial(Desk, None if dry_run else out, settings, table, key)
    done = (pool or ThisProcess()).run(work, batches)
    bar = tqdm(done, "intake", len(batches), unit="entry", disable=None)
    for (entry,), (decisions,) in bar:
        book.enter(entry, decisions)
    return book.closed(entries)


class _Book:
    """Enters decisions into the store and the account, one process for all."""

    def __init__(
        self, store: LatentStore | None, key: SiteKey, table: Mapping[str, Report]
    ) -> None:
        self._store = store
        self._hashed = key.hashed
        self._names = set(table)
        self._known = read_account(store.folder) if store else {}
        self._seen: dict[str, Entry] = {}
        self._outcomes: dict[Entry, list[StudyOutcome]] = {}
        self._unwritten: list[StudyAccount] = []

    def has(self, entry: Entry) -> bool:
        """Tell whether an entry needs no look: it is in the store, or no study."""
        if not is_scan(entry.path):
            return False
        if entry.name in self._seen:
            self._outcomes[entry] = [self._again(entry, entry.name)]
            return True
        self._seen[entry.name] = entry
        study = self._hashed(entry.name)
        if self._store is None or study not in self._store:
            return False
        self._outcomes[entry] = [StudyOutcome(entry.name, self._earlier(study))]
        return True

    def enter(self, entry: Entry, decisions: Sequence[Decision] | str) -> None:
        """Enter what was decided on an entry, or that its worker was lost."""
        if isinstance(decisions, str):
            decisions = [Decision(entry.name, self._lost(entry, decisions))]
        self._outcomes[entry] = [self._entered(entry, one) for one in decisions]

    def closed(self, entries: Sequence[Entry]) -> IntakeAccount:
        """Return the account of all entries, in their order."""
        self._write()
        if self._unwritten:
            raise IncompleteError(
                "expected room on the disk for the account of the studies, found none; "
                "make some and repeat the command"
            )
        studies = [one for entry in entries for one in self._outcomes.get(entry, ())]
        found = {study.name for study in studies}
        return IntakeAccount(tuple(studies), len(self._names - found))

    def _entered(self, entry: Entry, decision: Decision) -> StudyOutcome:
        name, account, record = decision.name, decision.account, decision.record
        owner = self._seen.setdefault(name, entry)
        if owner != entry:
            return self._again(entry, name, account.reason if account.refused else "")
        if record is None and not account.refused and self._store is not None:
            return StudyOutcome(name, self._earlier(account.study))
        try:
            if record is not None and self._store is not None:
                self._store.enter(record)
        except OSError:
            account = StudyAccount(account.study, "refused", _FULL)
        self._note(account)
        return StudyOutcome(name, account, new=not account.refused)

    def _again(self, entry: Entry, name: str, reason: str = "") -> StudyOutcome:
        """Refuse what has the name of a study under an id of its own."""
        study = self._hashed(f"again/{entry.path.name}")
        account = StudyAccount(study, "refused", reason or "another study has its name")
        self._note(account)
        return StudyOutcome(name, account)

    def _lost(self, entry: Entry, said: str) -> StudyAccount:
        reason = (
            f"{said} (a decoder or the memory failed); leave it out, or take fewer "
            "workers"
        )
        return StudyAccount(self._hashed(entry.name), "refused", reason)

    def _earlier(self, study: str) -> StudyAccount:
        return self._known.get(study) or StudyAccount(study, "taken")

    def _note(self, account: StudyAccount) -> None:
        if self._store is not None:
            self._unwritten.append(account)
            self._write()

    def _write(self) -> None:
        """Write what is not yet in the account; on a full disk it waits for room."""
        while self._unwritten and self._store is not None:
            try:
                note(self._store.folder, self._unwritten[0])
            except OSError:
                return
            self._unwritten.pop(0)


_FULL = (
    "expected room on the disk of the store, found none; make some and repeat the "
    "command"
)


def _open_store(out: Path, settings: IntakeSettings) -> LatentStore:
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
