"""Phantom studies on disk: DICOM folders or NIfTI files, and a table of reports."""

import csv
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from ctflow_fed.ct.dicom import SeriesTags, write_series
from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.ct.nifti import write_nifti
from ctflow_fed.ct.phantom.patient import patient_of
from ctflow_fed.ct.phantom.population import Population, draw_findings
from ctflow_fed.ct.phantom.report import compose
from ctflow_fed.ct.phantom.study import PhantomStudy, draw
from ctflow_fed.errors import MismatchError, SettingsError
from ctflow_fed.files import read_json, write_atomically, write_json
from ctflow_fed.seeds import derive_seed

__all__ = ["write_studies"]


def write_studies(
    out: Path,
    population: Population,
    count: int,
    seed: int,
    format: Literal["dicom", "nifti"] = "dicom",
) -> None:
    """Write ``count`` studies of a population, and ``reports.csv`` when all are there.

    Studies are named ``study-0001`` and on: a folder of DICOM slices or a ``.nii.gz``
    file each. A study that is there already is left as it is, so the same command
    goes on where it was stopped; study n is the same whatever the count. What the
    studies are made with stands in ``phantom.json``.

    Raises:
        SettingsError: ``count`` is not from 1 to 9999.
        MismatchError: the folder has studies that were made with other settings.
    """
    if not 1 <= count <= 9999:
        raise SettingsError(f"expected 1 to 9999 studies, got {count}; choose fewer")
    _claim(out, {"population": asdict(population), "seed": seed, "format": format})
    rows = []
    for number in tqdm(range(1, count + 1), desc=population.name, disable=None):
        name = f"study-{number:04d}"
        study_seed = derive_seed("study", population.name, seed, number)
        findings = draw_findings(study_seed, population)
        path = out / (name if format == "dicom" else f"{name}.nii.gz")
        if not path.exists():
            study = draw(study_seed, findings, scanner=population.scanner)
            _write(study, path, population, study_seed)
        rows.append(_row(name, study_seed, findings))
    write_atomically(out / "reports.csv", lambda path: _write_table(path, rows))


def _claim(out: Path, settings: dict[str, object]) -> None:
    """Note the settings of a new folder; refuse one that was made with others."""
    note = out / "phantom.json"
    if not note.exists():
        write_json(note, settings)
        return
    try:
        same = read_json(note) == settings
    except ValueError:
        same = False
    if not same:
        raise MismatchError(
            "expected a folder of the same population, scanner, seed and format, got "
            "one that was made with others; choose another folder"
        )


def _write(study: PhantomStudy, path: Path, population: Population, seed: int) -> None:
    """Write one study in the format that its path tells."""
    if path.suffix == ".gz":
        write_nifti(study.volume, path, description="synthetic: phantom")
        return
    scanner = population.scanner
    tags = SeriesTags(
        patient_id=_patient_id(seed),
        sex=study.sex,
        age=study.age,
        study_description="Chest phantom",
        scanner=scanner.name,
        kernel=f"sharpness {scanner.sharpness:.2f}",
        derivation="drawn from formulas; no patient was scanned",
    )
    write_series(study.volume, path, seed=seed, tags=tags)


def _patient_id(seed: int) -> str:
    return f"SYN-{seed:016x}"


def _row(name: str, seed: int, present: tuple[str, ...]) -> dict[str, str | int]:
    """One line of the table of reports."""
    labels = {finding: int(finding in present) for finding in FINDINGS}
    findings, impression = compose(labels, seed)
    patient = patient_of(seed)
    return {
        "study": name,
        "patient": _patient_id(seed),
        "findings": findings,
        "impression": impression,
        "age": patient.age,
        "sex": patient.sex,
        **labels,
    }


def _write_table(path: Path, rows: list[dict[str, str | int]]) -> None:
    """Write the rows as CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
