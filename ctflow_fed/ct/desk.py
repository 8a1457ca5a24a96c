"""The desk of an intake: where one entry of a source after the other is looked at."""

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch

from ctflow_fed.clips import CLIP_SLICES
from ctflow_fed.ct.account import StudyAccount, Verdict
from ctflow_fed.ct.chest import check_chest
from ctflow_fed.ct.codec import SliceCodec, codec_named, latents_of
from ctflow_fed.ct.codec_error import codec_numbers
from ctflow_fed.ct.demographics import Demographics
from ctflow_fed.ct.policy import IntakePolicy
from ctflow_fed.ct.privacy.key import SiteKey
from ctflow_fed.ct.privacy.study import scrub_report
from ctflow_fed.ct.report import ReportEncoder, encoder_named
from ctflow_fed.ct.report_table import Report, normal_name
from ctflow_fed.ct.scan import Scan, is_scan, scans_in
from ctflow_fed.ct.store import LatentStore, StudyRecord
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.errors import (
    InputError,
    MissingExtraError,
    SettingsError,
    VolumeError,
)
from ctflow_fed.processes import time_limit

__all__ = ["BEGUN", "Decision", "Desk", "Entry", "IntakeSettings"]

NO_ROW = "the table of reports has no row of it"
SYNTHETIC = (
    "expected a scan of a patient, got a volume that says it is synthetic; leave it "
    "out, or let the policy accept it"
)

ENDED = (
    "expected a scan that its reader can finish, got one that took too long or ended "
    "it; leave it out, export it again, or take fewer workers"
)

BEGUN = "begun"
"""The folder of a store where a study has a file while it is read.

What is left there when all workers have ended is a study that ended one.
"""


@dataclass(frozen=True)
class IntakeSettings:
    """How scans and reports become latents; the same for all sites of a federation.

    ``image_size`` is the side of the square that a slice is brought to, in pixels;
    ``codec`` is ``haar`` or FLUX's autoencoder (`codec_named`); ``encoder`` is
    ``hashing`` or CT-CLIP's text tower (`encoder_named`); ``policy`` says what is done
    with scans that are not as they should be; ``device`` is where slices are encoded.
    """

    image_size: int = 256
    codec: str = "haar"
    encoder: str = "hashing"
    policy: IntakePolicy = field(default_factory=IntakePolicy)
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not 16 <= self.image_size <= 1024:
            raise SettingsError(
                f"expected an image size from 16 to 1024, got {self.image_size}; "
                "256 is CTFlow's"
            )
        if self.device != "cpu" and not _is_there(self.device):
            raise SettingsError(
                "expected the device cpu, or cuda where there is one, got another; "
                "choose cpu"
            )


def _is_there(device: str) -> bool:
    return device == "cuda" and torch.cuda.is_available()


@dataclass(frozen=True)
class Entry:
    """A file or folder of the source; ``name`` is what the table may call it."""

    name: str
    path: Path


@dataclass(frozen=True)
class Decision:
    """What became of one study of an entry, and its record where it was written.

    A refusal that is not ``lasting`` may be none the next time: a full disk, rights.
    """

    name: str = field(repr=False)
    account: StudyAccount
    record: StudyRecord | None = None
    lasting: bool = True


class Desk:
    """Looks at entries, and writes the tensors of those that can be taken.

    ``out`` is None on a dry run: everything is read and judged, nothing written.
    ``seconds`` are what a worker may spend on a study, before it is ended.
    """

    def __init__(
        self,
        out: Path | None,
        settings: IntakeSettings,
        table: Mapping[str, Report],
        key: SiteKey,
        seconds: float | None = None,
    ) -> None:
        self._out = out
        self._seconds = seconds
        self._settings = settings
        self._table = table
        self._hashed = key.hashed

    def __call__(self, entries: Sequence[Entry]) -> list[list[Decision]]:
        """Decide on each entry."""
        return [list(self.decide(entry)) for entry in entries]

    def decide(self, entry: Entry) -> Iterator[Decision]:
        """Yield what becomes of each study of an entry."""
        try:
            scans = self._scans(entry)
        except InputError as error:
            yield self._refused(entry.name, error)
            return
        for scan in scans:
            names = [normal_name(name) for name in scan.names]
            name = next((name for name in names if name in self._table), names[0])
            try:
                with self._watched(name):
                    taken = self._taken(name, scan, entry, alone=len(scans) == 1)
                yield taken
            except InputError as error:
                yield self._refused(name, error)

    @contextmanager
    def _watched(self, name: str) -> Iterator[None]:
        """Leave a mark while a study is read; refuse one whose reader was ended."""
        with ExitStack() as watch:
            if self._seconds is not None:
                watch.enter_context(time_limit(self._seconds))
            if self._out is not None:
                mark = self._out / BEGUN / self._hashed(name)
                if mark.exists():
                    raise _PassingError(ENDED)
                with suppress(OSError):  # a full disk is told where it matters
                    mark.touch()
                watch.callback(mark.unlink, missing_ok=True)
            yield

    def _scans(self, entry: Entry) -> tuple[Scan, ...]:
        if not is_scan(entry.path):
            raise VolumeError("neither a folder nor a volume that can be read")
        alone = entry.name in self._table
        if not entry.path.is_dir() and not alone:
            raise VolumeError(NO_ROW)
        with _refusing_what_breaks():
            return scans_in(entry.path, self._settings.policy, alone=alone)

    def _taken(self, name: str, scan: Scan, entry: Entry, *, alone: bool) -> Decision:
        study = self._hashed(name)
        if self._store is not None and study in self._store:
            return Decision(name, StudyAccount(study, "taken"))
        report = self._table.get(name)
        if report is None or report.problem:
            raise VolumeError(report.problem if report else NO_ROW)
        if scan.synthetic and self._settings.policy.synthetic == "refuse":
            raise VolumeError(SYNTHETIC)
        with _refusing_what_breaks():
            volume, choice = scan.read(report.acquisition)
            numbers, remarks = self._judged(volume)
            scrubbed = scrub_report(report, entry.path, alone=alone)
            verdict: Verdict = "corrected" if volume.notes else "taken"
            reason = "; ".join([*volume.notes, *remarks, *filter(None, [choice])])
            squared = volume.squared(self._settings.image_size)
            del volume  # the store gets the squared one; memory need not hold both
            numbers |= scrubbed.numbers | codec_numbers(
                self._codec, squared, self._settings.device
            )
            told = Demographics.agreed({scan.demographics, report.demographics})
            report = replace(report, text=scrubbed.text, demographics=told)
            record = self._written(study, squared, report)
            return Decision(name, StudyAccount(study, verdict, reason, numbers), record)

    def _judged(self, volume: CTVolume) -> tuple[dict[str, float], tuple[str, ...]]:
        """Measure a volume; refuse one that is too short or, by policy, no chest."""
        between, row, column = volume.spacing
        slices = len(volume.hu)
        if slices < CLIP_SLICES:
            raise VolumeError(
                f"expected {CLIP_SLICES} slices or more, got {slices}; "
                "a shorter scan cannot be learnt from"
            )
        chest = check_chest(volume)
        if chest.refusal and self._settings.policy.region == "chest":
            raise VolumeError(chest.refusal)
        measured = {
            "slices": slices,
            "slice_mm": between,
            "row_mm": row,
            "column_mm": column,
        }
        return measured | chest.numbers, chest.remarks

    def _written(
        self, study: str, squared: CTVolume, report: Report
    ) -> StudyRecord | None:
        if self._store is None:
            return None
        return self._store.write(
            study,
            latents_of(self._codec, squared.hu, self._settings.device),
            self._encoder.encode([report.text]).tokens[0],
            spacing=squared.spacing,
            labels=report.labels,
            flags=squared.notes,
            patient=report.patient and self._hashed(f"patient/{report.patient}"),
            demographics=report.demographics,
        )

    def _refused(self, name: str, error: InputError) -> Decision:
        account = StudyAccount(self._hashed(name), "refused", str(error))
        return Decision(name, account, lasting=not isinstance(error, _PassingError))

    @cached_property
    def _store(self) -> LatentStore | None:
        return None if self._out is None else LatentStore.open(self._out)

    @cached_property
    def _codec(self) -> SliceCodec:
        return codec_named(self._settings.codec)

    @cached_property
    def _encoder(self) -> ReportEncoder:
        return encoder_named(self._settings.encoder)


class _PassingError(VolumeError):
    """What the machine cannot do now, and perhaps can the next time."""


@contextmanager
def _refusing_what_breaks() -> Iterator[None]:
    """Turn what hostile files, rights and full disks break into a refusal."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _PassingError(
                "expected room on the disk of the store, found none; make some and "
                "repeat the command"
            ) from None
        raise _PassingError(
            "expected files that may be read, got one that may not; check its rights"
        ) from None
    except MissingExtraError as error:
        raise _PassingError(str(error)) from None
    except (ArithmeticError, MemoryError, RuntimeError, ValueError):
        raise _PassingError(
            "expected a scan that fits the reader and the memory, got one that does "
            "not; export it again"
        ) from None
