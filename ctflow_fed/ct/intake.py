"""Scans and reports of a hospital -> a store of latents that names no patient."""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tqdm import tqdm

from ctflow_fed.clips import CLIP_SLICES
from ctflow_fed.ct.account import StudyAccount, note, read_account
from ctflow_fed.ct.codec import SliceCodec, codec_named, edges_of
from ctflow_fed.ct.codec_error import codec_numbers
from ctflow_fed.ct.dicom.parsing import looks_like_dicom
from ctflow_fed.ct.dicom.series import read_series, visible_files
from ctflow_fed.ct.nifti import read_nifti
from ctflow_fed.ct.privacy.key import SiteKey
from ctflow_fed.ct.privacy.study import scrub_report
from ctflow_fed.ct.report import ReportEncoder, encoder_named
from ctflow_fed.ct.report_table import Report, normal_name, read_reports
from ctflow_fed.ct.store import LatentStore, StoreHeader
from ctflow_fed.ct.table_files import TABLE_ENDINGS
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.errors import InputError, SettingsError, StoreError, VolumeError

__all__ = ["IntakeAccount", "IntakeSettings", "StudyOutcome", "intake"]

NIFTI = re.compile(r"(.+)\.nii(\.gz)?", re.IGNORECASE)
NO_ROW = "the table of reports has no row of it"
TABLES = TABLE_ENDINGS | {".json", ".key", ".md", ".txt"}
"""What lies beside scans and is none."""


@dataclass(frozen=True)
class IntakeSettings:
    """How scans and reports become latents; the same for all sites of a federation.

    ``image_size`` is the side of the square that a slice is brought to, in pixels;
    ``codec`` is ``haar`` or FLUX's autoencoder (`codec_named`); ``encoder`` is
    ``hashing`` or CT-CLIP's text tower (`encoder_named`).
    """

    image_size: int = 256
    codec: str = "haar"
    encoder: str = "hashing"

    def __post_init__(self) -> None:
        if not 16 <= self.image_size <= 1024:
            raise SettingsError(
                f"expected an image size from 16 to 1024, got {self.image_size}; "
                "256 is CTFlow's"
            )


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
    source: Path, reports: Path, out: Path, settings: IntakeSettings
) -> IntakeAccount:
    """Take every study of ``source`` that has a report into the store ``out``.

    A study is a folder directly in ``source`` that holds one DICOM series at any depth,
    or no DICOM and one NIfTI file, or it is a NIfTI file directly there. A study that
    cannot be taken, or anything else but a table, is refused with a reason and the
    others go on; one that is in the store already is not read again, so that the same
    command resumes. Every study's account is kept in the store (`read_account`).

    A study is known by its name at the site and by a keyed hash of it in the store, and
    so is its patient if the table has a column ``patient``; the key is made beside the
    store and never leaves the site (`SiteKey`). What may tell who the patient is goes
    out of a report before it is encoded (`scrub_report`).

    Raises ``InputError`` when ``source`` has no study, ``ReportTableError`` for a table
    that cannot be used and ``MismatchError`` when the store was made in another way.
    """
    table = read_reports(reports)
    studies = _studies(source, {os.path.realpath(out), os.path.realpath(reports)})
    desk = _Desk(out, settings)
    progress = tqdm(studies, desc="intake", unit="study", disable=None)
    return IntakeAccount(
        studies=tuple(
            desk.take(name, path, table.get(name)) for name, path in progress
        ),
        reports_without_scan=len(set(table) - {name for name, _ in studies}),
    )


class _Desk:
    """Where studies are taken one by one: the store and all that makes its tensors."""

    def __init__(self, out: Path, settings: IntakeSettings) -> None:
        self._codec: SliceCodec = codec_named(settings.codec)
        self._encoder: ReportEncoder = encoder_named(settings.encoder)
        self._image_size = settings.image_size
        self.store = self._open_store(out)
        self._hashed = SiteKey.of(out, new=len(self.store) == 0).hashed
        self._known = read_account(out)
        self._seen: set[str] = set()

    def take(self, name: str, path: Path, report: Report | None) -> StudyOutcome:
        """Take one study, unless there is a reason not to."""
        study = self._hashed(name)
        if name in self._seen:
            study = self._hashed(f"again/{path.name}")
            return self._refused(
                name, study, "another study of the source has its name"
            )
        if not _is_study(path):
            return self._refused(name, study, "neither a folder nor a NIfTI file")
        self._seen.add(name)
        if study in self.store:
            known = self._known.get(study)
            return StudyOutcome(name, known or StudyAccount(study, "taken"))
        if report is None or report.problem:
            reason = report.problem if report else NO_ROW
            return self._refused(name, study, reason)
        try:
            squared = _read(path, self._image_size)
            scrubbed = scrub_report(report, path)
            self._put(study, squared, replace(report, text=scrubbed.text))
        except (VolumeError, StoreError) as error:
            return self._refused(name, study, str(error))
        numbers = _numbers(squared) | scrubbed.numbers
        numbers |= codec_numbers(self._codec, squared)
        account = StudyAccount(study, "taken", numbers=numbers)
        note(self.store.folder, account)
        return StudyOutcome(name, account, new=True)

    def _refused(self, name: str, study: str, reason: str) -> StudyOutcome:
        account = StudyAccount(study, "refused", reason)
        note(self.store.folder, account)
        return StudyOutcome(name, account)

    def _put(self, study: str, squared: CTVolume, report: Report) -> None:
        latents = self._codec.encode(torch.from_numpy(squared.hu).float())
        tokens = self._encoder.encode([report.text])
        self.store.put(
            study,
            latents,
            tokens.tokens[0],
            spacing=squared.spacing,
            labels=report.labels,
            flags=squared.notes,
            patient=report.patient and self._hashed(f"patient/{report.patient}"),
        )

    def _open_store(self, out: Path) -> LatentStore:
        codec, size = self._codec, self._image_size
        if size % (2 * codec.factor):
            raise SettingsError(
                f"expected an image size in multiples of {2 * codec.factor}, got {size}"
                "; choose another, because the network takes latents two by two"
            )
        side = size // codec.factor
        header = StoreHeader(
            codec.codec_id, self._encoder.encoder_id, codec.channels, side, side
        )
        return LatentStore.create(
            out, header, edges_of(codec, size), codec.channel_weights
        )


def _studies(source: Path, others: set[str]) -> list[tuple[str, Path]]:
    """Name every entry of the source that is no table, in the order of the names.

    ``others`` are the store and the table of reports, which may lie there too.
    """
    try:
        children = sorted(source.iterdir())
    except OSError:
        children = []
    studies = []
    for path in children:
        nifti = NIFTI.fullmatch(path.name)
        if path.name.startswith(".") or os.path.realpath(path) in others:
            continue
        if _is_study(path) or path.suffix.lower() not in TABLES:
            name = nifti[1] if nifti and not path.is_dir() else path.name
            studies.append((normal_name(name), path))
    if not any(_is_study(path) for _, path in studies):
        raise InputError(
            "expected folders of DICOM files or NIfTI files in the source, found none; "
            "give the folder that holds one folder or one NIfTI file a study"
        )
    return studies


def _is_study(path: Path) -> bool:
    return path.is_dir() or NIFTI.fullmatch(path.name) is not None


def _read(path: Path, image_size: int) -> CTVolume:
    """Read and square a scan; whatever hostile files break becomes ``VolumeError``."""
    try:
        scan = _scan_in(path) if path.is_dir() else path
        volume = read_series(scan) if scan.is_dir() else read_nifti(scan)
        _refuse_short(volume)
        return volume.squared(image_size)
    except OSError:
        raise VolumeError(
            "expected files that may be read, got one that may not; check its rights"
        ) from None
    except (ArithmeticError, MemoryError, RuntimeError, ValueError):
        raise VolumeError(
            "expected a scan that fits the reader and the memory, got one that does "
            "not; export it again"
        ) from None


def _scan_in(folder: Path) -> Path:
    """Return the NIfTI file of a folder that has no DICOM, or the folder itself."""
    files = visible_files(folder)
    scans = [path for path in files if NIFTI.fullmatch(path.name)]
    if not scans or any(
        path.suffix.lower() == ".dcm" or looks_like_dicom(path) for path in files
    ):
        return folder
    if len(scans) > 1:
        raise VolumeError(
            "expected one scan in a folder, got several NIfTI files; put each NIfTI "
            "file directly into the source"
        )
    return scans[0]


def _numbers(volume: CTVolume) -> dict[str, float]:
    """Return what the account tells of a volume."""
    between, row, column = volume.spacing
    return {
        "slices": len(volume.hu),
        "slice_mm": between,
        "row_mm": row,
        "column_mm": column,
    }


def _refuse_short(volume: CTVolume) -> None:
    slices = len(volume.hu)
    if slices < CLIP_SLICES:
        raise VolumeError(
            f"expected {CLIP_SLICES} slices or more, got {slices}; "
            "a shorter scan cannot be learnt from"
        )
