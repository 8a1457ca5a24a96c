"""Synthetic volumes as DICOM series, and as latents."""

from pathlib import Path

from tqdm import tqdm

from ctflow_fed.augment.record import SynthRecord
from ctflow_fed.augment.store import SynthStore
from ctflow_fed.errors import StoreError
from ctflow_fed.files import write_json

__all__ = ["write_dicom", "write_latents"]

SYNTHETIC = "synthetic"
"""What the record of a study says that no patient is in."""


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


def write_latents(
    store: SynthStore,
    out: Path | str,
    *,
    codec: str = "haar",
    encoder: str = "hashing",
) -> int:
    """Write the volumes of a set as a store of latents; return how many are new.

    It is what an intake makes of scans (`ctflow_fed.ct.store`): latents, the tokens of
    the reports, labels. A study has the id of its sample, is a patient of its own, and
    is flagged ``synthetic``. ``codec`` and ``encoder`` are those of the model, by name.

    Raises ``MismatchError`` where they are others, ``StoreError`` where the set is
    empty or a volume of it is damaged.
    """
    from ctflow_fed.ct.codec import codec_named, latents_of  # they need torch
    from ctflow_fed.ct.intake import IntakeSettings, open_store
    from ctflow_fed.ct.nifti import read_nifti
    from ctflow_fed.ct.report import encoder_named
    from ctflow_fed.model.package import check_kind

    records, origin = store.records(), store.header.origin
    if not records:
        raise StoreError("the set has no volume yet; draw some: ctflow augment run")
    pixels, words = codec_named(codec), encoder_named(encoder)
    check_kind("codec", origin.codec_id, pixels.codec_id)
    check_kind("report encoder", origin.encoder_id, words.encoder_id)
    side = records[0].shape[1]
    settings = IntakeSettings(image_size=side, codec=codec, encoder=encoder)
    latents = open_store(Path(out), settings)
    todo = [record for record in records if record.sample_id not in latents]
    for record in tqdm(todo, "latents", unit="volume", disable=None):
        volume = read_nifti(store.image(record.sample_id))
        latents.put(
            record.sample_id,
            latents_of(pixels, volume.hu),
            words.encode([store.report(record)]).tokens[0],
            spacing=volume.spacing,
            labels=record.labels,
            flags=(SYNTHETIC,),
            patient=record.sample_id,
        )
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
