"""Synthetic volumes as DICOM series."""

from pathlib import Path

from tqdm import tqdm

from ctflow_fed.augment.record import SynthRecord
from ctflow_fed.augment.store import SynthStore
from ctflow_fed.files import write_json

__all__ = ["write_dicom"]


def write_dicom(store: SynthStore, out: Path | str) -> int:
    """Write the volumes of a set as CT series; return how many were written now.

    ``out/ID/`` is a series, ``out/ID.json`` its sidecar, written after it; what is
    there is left, so that the same call goes on. HU and geometry are those of the
    NIfTI file; the patient is ``SYN-ID``, and every UID is a hash of that and of the
    voxels (`ctflow_fed.ct.dicom.write_series`).

    Raises ``StoreError`` where a volume of the set is damaged.
    """
    out = Path(out)
    todo = [each for each in store.records() if not _sidecar(out, each).exists()]
    for record in tqdm(todo, "series", unit="volume", disable=None):
        if not (out / record.sample_id).exists():
            _write_series(store, record, out / record.sample_id)
        write_json(_sidecar(out, record), record.to_json(store.header.origin))
    return len(todo)


def _sidecar(out: Path, record: SynthRecord) -> Path:
    return out / f"{record.sample_id}.json"


def _write_series(store: SynthStore, record: SynthRecord, folder: Path) -> None:
    from ctflow_fed.ct.dicom import SeriesTags, write_series  # they need torch
    from ctflow_fed.ct.nifti import read_nifti

    tags = SeriesTags(
        patient_id=f"SYN-{record.sample_id}",
        study_description="Synthetic chest CT",
        derivation=f"drawn by model {store.header.origin.model[:16]}; no patient",
    )
    volume = read_nifti(store.image(record.sample_id))
    write_series(volume, folder, seed=record.seed, tags=tags)
