"""The scans that lie in an entry of a source, each with the names it may have."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ctflow_fed.ct.acquisition import Acquisition
from ctflow_fed.ct.demographics import UNKNOWN, Demographics
from ctflow_fed.ct.dicom.parsing import looks_like_dicom
from ctflow_fed.ct.dicom.series import Study, studies_in, the_only, visible_files
from ctflow_fed.ct.metaimage import ITK_SUFFIXES, read_itk
from ctflow_fed.ct.nifti import SUFFIXES, read_nifti
from ctflow_fed.ct.policy import STRICT, IntakePolicy
from ctflow_fed.ct.synthetic import is_marked_synthetic
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.errors import VolumeError

__all__ = ["Scan", "is_scan", "name_of", "scans_in"]

ENDINGS = (*SUFFIXES, *ITK_SUFFIXES)

Reader = Callable[[Acquisition | None], tuple[CTVolume, str]]
"""Reads a scan; what is known of its acquisition helps where the file may be wrong."""


@dataclass(frozen=True)
class Scan:
    """One study of an entry.

    ``names`` are what a table of reports may call it: of a DICOM study its UID and its
    accession number, of a file its name; and the name of the entry, if it is the only
    one there. ``read`` gives the volume and what it was chosen from;
    ``demographics`` are what its headers say of the patient, and ``synthetic`` whether
    they say that there was none.
    """

    names: tuple[str, ...] = field(repr=False)
    read: Reader = field(repr=False)
    demographics: Demographics = UNKNOWN
    synthetic: bool = False


def is_scan(path: Path) -> bool:
    """Tell whether a path is a folder or ends as a volume does."""
    return path.is_dir() or path.name.lower().endswith(ENDINGS)


def name_of(path: Path) -> str:
    """Return the name of a folder or of a file without its ending."""
    for ending in ENDINGS:
        if path.name.lower().endswith(ending) and not path.is_dir():
            return path.name[: -len(ending)]
    return path.name


def scans_in(
    entry: Path, policy: IntakePolicy = STRICT, *, alone: bool = True
) -> tuple[Scan, ...]:
    """Find the scans of a file, or of a folder at any depth; no pixel is read.

    In a folder that has DICOM, other files are left aside. ``alone`` says that the
    entry is named in the table, so that more than one scan would be a doubt.

    Raises:
        VolumeError: when there is none, or several in place of the only one.
    """
    if not entry.is_dir():
        return (_file_scan(entry, name_of(entry)),)
    files = visible_files(entry)
    volumes = [path for path in files if path.name.lower().endswith(ENDINGS)]
    if not volumes or any(map(_is_dicom, files)):
        return _dicom_scans(entry, policy, alone=alone)
    if len(volumes) > 1 and alone:
        raise VolumeError(
            "expected one scan in a folder that the table names, got several files; "
            "name the files in the table"
        )
    only = (name_of(entry),) if len(volumes) == 1 else ()
    return tuple(_file_scan(path, *only, name_of(path)) for path in volumes)


def _dicom_scans(entry: Path, policy: IntakePolicy, *, alone: bool) -> tuple[Scan, ...]:
    studies = studies_in(entry, policy)
    shown = [study for study in studies if study.shows_patient]
    if alone or len(shown) < 2:
        return (_scan(the_only(studies), policy, entry.name),)
    return tuple(_scan(study, policy) for study in shown)


def _scan(study: Study, policy: IntakePolicy, *names: str) -> Scan:
    read = partial(_read_study, study, policy)
    return Scan((*names, *study.names), read, study.demographics, study.synthetic)


def _file_scan(path: Path, *names: str) -> Scan:
    return Scan(names, partial(_read_file, path), synthetic=is_marked_synthetic(path))


def _read_study(
    study: Study, policy: IntakePolicy, _: Acquisition | None
) -> tuple[CTVolume, str]:
    return study.read(policy)  # its headers are the first source


def _is_dicom(path: Path) -> bool:
    return path.suffix.lower() == ".dcm" or looks_like_dicom(path)


def _read_file(path: Path, acquisition: Acquisition | None) -> tuple[CTVolume, str]:
    itk = path.name.lower().endswith(ITK_SUFFIXES)
    return (read_itk(path) if itk else read_nifti(path, acquisition)), ""
