"""A synthetic volume as a CT series that says of itself that it is synthetic.

The elements follow DICOM PS3.3, A.3 (CT Image): type 1 and 2 of its mandatory modules.
"""

import hashlib
import re
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pydicom.valuerep import format_number_as_ds

from ctflow_fed import __version__
from ctflow_fed.ct.volume import AIR, CTVolume
from ctflow_fed.errors import SettingsError

__all__ = ["SeriesTags", "write_series"]

MAKER = "CTFlow-Fed"

_PATIENT_ID = re.compile(r"SYN-[A-Za-z0-9_-]{1,60}")
_PRINTABLE = re.compile(r"[ -\[\]-~]{0,64}")  # ASCII but the backslash, which separates

_EMPTY = (  # type 2: present, and unknown
    "PatientBirthDate",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
    "PositionReferenceIndicator",
    "KVP",
    "AcquisitionNumber",
)


@dataclass(frozen=True)
class SeriesTags:
    """What the headers of a synthetic series say about it.

    ``patient_id`` begins with ``SYN-``, so that it is never taken for a patient;
    ``scanner`` is the model whose look the voxels have, ``derivation`` how they came
    to be.
    """

    patient_id: str
    sex: Literal["M", "F", "O", ""] = ""
    age: int | None = None
    study_description: str = ""
    scanner: str = ""
    kernel: str = ""
    derivation: str = "generated; no patient was scanned"

    def __post_init__(self) -> None:
        if not _PATIENT_ID.fullmatch(self.patient_id):
            raise SettingsError(
                "patient_id of a synthetic series must be SYN- and up to 60 letters, "
                "digits, _ or -, got another; choose such a name"
            )
        if self.age is not None and not 0 <= self.age <= 150:
            raise SettingsError(f"age must be 0 to 150 years, got {self.age}")
        for name in ("study_description", "scanner", "kernel", "derivation"):
            if not _PRINTABLE.fullmatch(getattr(self, name)):
                raise SettingsError(
                    f"{name} must be at most 64 ASCII characters without a backslash, "
                    "got others; shorten it"
                )


def write_series(
    volume: CTVolume, folder: Path, *, seed: int, tags: SeriesTags
) -> None:
    """Write ``volume`` as CT Image Storage, one explicit little-endian file a slice.

    The same volume, seed and tags give the same bytes; UIDs are hashes of all three.
    The folder appears when it is complete.

    Raises:
        SettingsError: when ``folder`` exists and is not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise SettingsError(
            "expected a new or empty folder for a series, got one with files in it; "
            "choose another"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder.parent) as partial:
        complete = Path(partial, "series")
        complete.mkdir()
        _write_slices(volume, complete, seed, tags)
        complete.replace(folder)


def _write_slices(volume: CTVolume, folder: Path, seed: int, tags: SeriesTags) -> None:
    """Write the files; the slice that lies lowest in the patient is number 1."""
    entropy = [str(seed), repr(tags), hashlib.sha256(volume.hu.tobytes()).hexdigest()]
    series = _series_elements(tags, entropy)
    _add_geometry(series, volume)
    stored = (np.maximum(volume.hu, AIR).astype(np.int32) - AIR).astype("<u2")
    for index, pixels in enumerate(stored):
        dataset = Dataset()
        dataset.update(series)
        dataset.SOPInstanceUID = _uid(entropy, f"slice {index}")
        dataset.InstanceNumber = index + 1
        dataset.ImagePositionPatient = _decimals(
            _lps(volume.affine[:3] @ (index, 0, 0, 1))
        )
        dataset.PixelData = pixels.tobytes()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.save_as(folder / f"{index + 1:05}.dcm", enforce_file_format=True)


def _series_elements(tags: SeriesTags, entropy: list[str]) -> Dataset:
    """Return what all slices share, but for the geometry."""
    series = Dataset()
    for keyword in _EMPTY:
        setattr(series, keyword, None)
    series.SpecificCharacterSet = "ISO_IR 6"
    series.SOPClassUID = CTImageStorage
    series.Modality = "CT"
    series.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    series.StudyInstanceUID = _uid(entropy, "study")
    series.SeriesInstanceUID = _uid(entropy, "series")
    series.FrameOfReferenceUID = _uid(entropy, "frame of reference")
    series.SeriesNumber = 1
    series.PatientID = tags.patient_id
    series.PatientName = tags.patient_id
    series.PatientSex = tags.sex
    series.PatientAge = "" if tags.age is None else f"{tags.age:03}Y"
    series.PatientPosition = "HFS"
    series.StudyDescription = tags.study_description
    series.Manufacturer = MAKER
    series.ManufacturerModelName = tags.scanner
    series.SoftwareVersions = __version__
    series.ConvolutionKernel = tags.kernel
    _add_provenance(series, tags)
    return series


def _add_provenance(series: Dataset, tags: SeriesTags) -> None:
    """Mark the series as synthetic in every way that the standard has."""
    series.SyntheticData = "YES"
    series.ContentQualification = "RESEARCH"
    series.ImageComments = "SYNTHETIC - NOT FOR DIAGNOSTIC USE"
    series.DerivationDescription = tags.derivation
    series.PatientIdentityRemoved = "YES"
    series.DeidentificationMethod = "no patient: generated"
    series.BurnedInAnnotation = "NO"
    series.LossyImageCompression = "00"
    purpose = Dataset()
    purpose.CodeValue = "109100"
    purpose.CodingSchemeDesignator = "DCM"
    purpose.CodeMeaning = "Synthesizing Equipment"
    equipment = Dataset()
    equipment.PurposeOfReferenceCodeSequence = [purpose]
    equipment.Manufacturer = MAKER
    equipment.SoftwareVersions = __version__
    series.ContributingEquipmentSequence = [equipment]


def _add_geometry(series: Dataset, volume: CTVolume) -> None:
    """Add orientation, spacing and the description of the pixels."""
    slice_mm, row_mm, col_mm = volume.spacing
    along_row = _lps(volume.affine[:3, 2]) / col_mm
    along_column = _lps(volume.affine[:3, 1]) / row_mm
    series.ImageOrientationPatient = _decimals([*along_row, *along_column])
    series.PixelSpacing = _decimals([row_mm, col_mm])
    series.SliceThickness = _decimals([slice_mm])[0]
    series.SamplesPerPixel = 1
    series.PhotometricInterpretation = "MONOCHROME2"
    _, series.Rows, series.Columns = volume.hu.shape
    series.BitsAllocated = 16
    series.BitsStored = 16
    series.HighBit = 15
    series.PixelRepresentation = 0
    series.RescaleIntercept = AIR
    series.RescaleSlope = 1
    series.RescaleType = "HU"


def _uid(entropy: list[str], role: str) -> str:
    """Return a UID that depends on everything the series is made of.

    It is a UUID under the root 2.25, which asks for no registration (PS3.5, B.2).
    """
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, repr([*entropy, role])).int}"


def _lps(vector: np.ndarray) -> np.ndarray:
    """Turn a RAS vector into DICOM's LPS."""
    return vector * (-1.0, -1.0, 1.0)


def _decimals(numbers: np.ndarray | list[float]) -> list[str]:
    """Write numbers as decimal strings of at most 16 characters."""
    return [format_number_as_ds(float(number) + 0.0) for number in numbers]
