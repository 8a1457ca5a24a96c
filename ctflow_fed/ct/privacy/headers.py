"""What the headers of a scan say that may tell who the patient is."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
from pydicom import DataElement, Dataset
from pydicom.multival import MultiValue

from ctflow_fed.ct.dicom.parsing import looks_like_dicom, parse, refusing_doubts
from ctflow_fed.ct.metaimage import ITK_SUFFIXES
from ctflow_fed.ct.privacy.identity import (
    DESCRIBING,
    LONG_NUMBER,
    Identifier,
    of_date,
    of_description,
    of_name,
    of_text,
)
from ctflow_fed.errors import VolumeError

__all__ = ["header_identifiers"]

TEXTS = frozenset({"AE", "LO", "LT", "SH", "ST", "UC", "UR", "UT", "UN"})

TELLING = re.compile(
    r"^(?:Other)?Patient(?!Position|Orient)|AccessionNumber|SerialNumber|IDs?$|Address"
    r"|Phone|Telephone|Institution|Physician|Operator|Department|StationName|Issuer"
    r"|Insurance|Requesting"
)
"""The standard elements whose texts tell apart patients, people and hospitals."""

TECHNICAL = re.compile(
    r"Kernel|Manufacturer|Model|Protocol|BodyPart|Software|Filter|Contrast"
    r"|Agent|Cod(?:e|ing)|Anatomic|Version|CharacterSet|Position|Orient"
)
"""The standard elements that describe scans; they tell nothing."""

STANDARD_UID = "1.2.840.10008."
TEXT_HEADER = 2**16


def header_identifiers(path: Path) -> frozenset[Identifier]:
    """Return what the header of a volume or DICOM file tells, private elements too.

    Values that need not tell anything are of the kind ``other``. A file whose header
    cannot be read tells nothing.
    """
    try:
        if looks_like_dicom(path):
            with refusing_doubts("expected elements that can be decoded"):
                dataset, _ = parse(path, None)
                return frozenset(_in_elements(dataset))
        if path.name.lower().endswith((".nii", ".nii.gz")):
            return frozenset(_in_nifti(path))
        if path.name.lower().endswith(ITK_SUFFIXES):
            return frozenset(_in_text_header(path))
    except VolumeError:
        pass
    return frozenset()


def _in_elements(dataset: Dataset) -> Iterator[Identifier]:
    for element in (*dataset.file_meta, *dataset.iterall()):
        for value in _values(element):
            yield from _in_element(element, value)


def _in_element(element: DataElement, value: str) -> Iterator[Identifier]:
    private = element.tag.is_private
    if element.VR == "PN" or (private and "^" in value):
        coded = "^" not in value and re.search(r"\d", value)  # LUNG1-001 is no name
        yield from of_text(value) if coded else of_name(value)
    elif element.VR in {"DA", "DT"}:
        yield from of_date(value)
    elif element.VR == "UI":
        yield from () if value.startswith(STANDARD_UID) else of_text(value)
    elif element.VR in TEXTS or (private and element.VR == "IS"):
        if not private and DESCRIBING.search(element.keyword):
            yield from of_description(value)
        elif not private and TELLING.search(element.keyword):
            yield from of_text(value)
        elif private or not TECHNICAL.search(element.keyword):
            yield from _vague(of_text(value))


def _vague(found: Iterable[Identifier]) -> Iterator[Identifier]:
    """Call ``other`` what is neither a date, a UID nor a long number."""
    for each in found:
        long = each.kind == "number" and len(each.text) >= LONG_NUMBER
        sure = long or each.kind in {"date", "uid"}
        yield each if sure else Identifier("other", each.text)


def _values(element: DataElement) -> Iterator[str]:
    value = element.value
    for each in value if isinstance(value, MultiValue) else [value]:
        if isinstance(each, bytes):
            yield each.decode("ascii", "ignore") if each.isascii() else ""
        elif not isinstance(each, float) and each is not None:
            yield str(each)


def _in_nifti(path: Path) -> Iterator[Identifier]:
    try:
        image: Any = nib.load(path)
        header = image.header
        texts = [
            bytes(header[name]).rstrip(b"\0").decode("latin-1")
            for name in ("descrip", "aux_file", "intent_name", "db_name")
            if name in header
        ]
        for extension in getattr(header, "extensions", ()):
            texts += str(extension.get_content()).splitlines()
    except Exception:  # noqa: BLE001  parsers of hostile bytes raise anything
        return
    for text in texts:
        yield from _vague(of_text(text))


def _in_text_header(path: Path) -> Iterator[Identifier]:
    """Yield what the lines of a MetaImage or NRRD header tell, up to the voxels."""
    with path.open("rb") as file:
        start = file.read(TEXT_HEADER)
    for line in re.split(rb"\n\r?\n|ElementDataFile", start)[0].splitlines():
        value = re.split("[:=]+", line.decode("latin-1"), maxsplit=1)[-1].strip()
        yield from of_name(value) if "^" in value else _vague(of_text(value))
