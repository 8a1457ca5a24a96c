"""The volumes of a folder, whoever drew or scanned them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from ctflow_fed.ct.nifti import read_nifti
from ctflow_fed.ct.table_files import read_table
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.errors import ReportTableError
from ctflow_fed.files import sha256_of

__all__ = [
    "Scan",
    "read_groups",
    "read_pairs",
    "read_patients",
    "read_prompts",
    "scans_of",
]

ENDINGS = (".nii", ".nii.gz")
MOST_GROUPS = 40


@dataclass(frozen=True)
class Scan:
    """One NIfTI file: where it is, what is in it (SHA-256), whose it is."""

    path: Path
    digest: str
    patient: str

    @property
    def name(self) -> str:
        """The name of the file, without its ending."""
        return _stem(self.path)

    def read(self) -> CTVolume:
        """Read the volume; raises ``VolumeError`` for what is no CT in HU."""
        return read_nifti(self.path)


def scans_of(folder: Path, patients: Mapping[str, str] | None = None) -> list[Scan]:
    """Return the NIfTI files of a folder and the folders in it, by name.

    ``patients`` names the patient of a file (its name without the ending); a file that
    it does not name, or any without it, is a patient of its own.
    """
    return [_scan(path, patients or {}) for path in _files(folder)]


def read_patients(path: Path) -> dict[str, str]:
    """Read a table with the columns ``study`` (a file's name) and ``patient``."""
    rows = _rows(path, "study", "patient")
    return {_stem(Path(study)): patient for study, patient in rows}


def read_prompts(path: Path) -> dict[str, str]:
    """Read a table of which real file's report each synthetic one was drawn from.

    Its columns are ``synthetic`` and ``real``, names of files.
    """
    rows = _rows(path, "synthetic", "real")
    return {_stem(Path(drawn)): _stem(Path(real)) for drawn, real in rows}


def read_pairs(path: Path) -> list[tuple[str, str, str]]:
    """Read a table of pairs of synthetic files whose reports differ by one finding.

    Its columns are ``finding``, ``with`` and ``without``.
    """
    return [
        (finding.strip(), _stem(Path(first)), _stem(Path(second)))
        for finding, first, second in _rows(path, "finding", "with", "without")
    ]


def read_groups(
    path: Path, scans: Sequence[Scan]
) -> dict[str, Bool[np.ndarray, " scans"]]:
    """Read which scans are of which group: of every value of every column but study.

    Empty cells are of no group. Raises ``ReportTableError`` where there are too many.
    """
    columns, rows = read_table(path)
    list(_rows(path, "study"))
    cells = {_stem(Path(row["study"])): row for _, row in rows}
    groups: dict[str, Bool[np.ndarray, " scans"]] = {}
    for column in columns:
        values = [cells.get(scan.name, {}).get(column, "").strip() for scan in scans]
        for value in sorted(set(values) - {""}) if column != "study" else ():
            groups[f"{column} {value}"] = np.array([each == value for each in values])
    if len(groups) > MOST_GROUPS:
        raise ReportTableError(
            f"expected at most {MOST_GROUPS} groups of patients, got {len(groups)}; "
            "give bands of age in place of ages"
        )
    return groups


def _rows(path: Path, *names: str) -> Iterator[tuple[str, ...]]:
    columns, rows = read_table(path)
    if not set(names) <= set(columns):
        raise ReportTableError(
            f"expected a table with the columns {', '.join(names)}, found others; "
            "name them so"
        )
    return (tuple(row[name] for name in names) for _, row in rows)


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.name.endswith(ENDINGS) and path.name[0] != "." and path.is_file():
            yield path


def _scan(path: Path, patients: Mapping[str, str]) -> Scan:
    name = _stem(path)
    # A name of a patient cannot be that of a file.
    patient = f"patient {patients[name]}" if name in patients else f"file {path}"
    return Scan(path, sha256_of(path), patient)


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")
