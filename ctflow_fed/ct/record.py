"""What a `LatentStore` writes down about itself and about each study."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ctflow_fed.ct.demographics import AGE_BANDS, SEXES
from ctflow_fed.errors import StoreError
from ctflow_fed.files import is_sha256

__all__ = ["StoreHeader", "StudyRecord"]

STUDY_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
LARGEST = 2**20  # of any count or length: what is larger comes from a broken file


@dataclass(frozen=True)
class StoreHeader:
    """What every study of a store has in common.

    The two ids name the codec and the report encoder that made the store; a latent is
    ``[channels, height, width]``.
    """

    codec_id: str
    encoder_id: str
    channels: int
    height: int
    width: int

    @classmethod
    def from_json(cls, value: object) -> "StoreHeader":
        """Check and read a header; anything unexpected raises ``StoreError``."""
        if not isinstance(value, dict) or not _fits(value, _HEADER):
            raise StoreError(
                "store.json is not the header of a store of latents; "
                "take the studies in again into a new folder"
            )
        return cls(**value)


@dataclass(frozen=True)
class StudyRecord:
    """One study of a store: what is known of it before its tensors are read.

    ``spacing`` is the distance of neighbouring slices, rows and columns of the volume
    that was encoded, in mm; ``labels`` has 0 or 1 for each finding; ``flags`` are short
    remarks for whoever selects studies; ``sha256`` is the digest of the study's file.
    ``patient`` is the same for all studies of a patient, a keyed hash as the id is;
    empty where the patient is not known. ``age_band`` and ``sex`` are those of
    `Demographics`.
    """

    study_id: str
    slices: int
    spacing: tuple[float, float, float]
    labels: dict[str, int]
    flags: tuple[str, ...]
    sha256: str
    patient: str = ""
    age_band: str = ""
    sex: str = ""

    @classmethod
    def from_json(cls, value: object) -> "StudyRecord":
        """Check and read one line of the index, or raise ``StoreError``."""
        if isinstance(value, dict):
            value = {**_LATER, **value}  # older stores do not know them
        if not isinstance(value, dict) or not _fits(value, _RECORD):
            raise StoreError(
                "this is no record of a study: it needs an id of up to 64 letters, "
                "digits, - or _, a spacing of 3 positive lengths, labels of 0 or 1 and "
                "of the patient a decade and a sex at most"
            )
        between, row, column = (float(length) for length in value["spacing"])
        spacing, flags = (between, row, column), tuple(value["flags"])
        return cls(**{**value, "spacing": spacing, "flags": flags})


def _is_count(value: object) -> bool:
    return type(value) is int and 0 < value <= LARGEST


def _is_length(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return 0 < value <= LARGEST


def _is_spacing(value: object) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 3
        and all(map(_is_length, value))
    )


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 256


def _is_labels(value: object) -> bool:
    return isinstance(value, dict) and all(
        _is_name(name) and type(label) is int and label in (0, 1)
        for name, label in value.items()
    )


def _is_flags(value: object) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_name, value))


def _is_id(value: object) -> bool:
    return isinstance(value, str) and STUDY_ID.fullmatch(value) is not None


def _is_patient(value: object) -> bool:
    return value == "" or _is_id(value)


def _is_age_band(value: object) -> bool:
    return value == "" or value in AGE_BANDS


def _is_sex(value: object) -> bool:
    return value == "" or value in SEXES


_Fields = Mapping[str, Callable[[object], bool]]

_HEADER: _Fields = {
    "codec_id": _is_name,
    "encoder_id": _is_name,
    "channels": _is_count,
    "height": _is_count,
    "width": _is_count,
}

_RECORD: _Fields = {
    "study_id": _is_id,
    "slices": _is_count,
    "spacing": _is_spacing,
    "labels": _is_labels,
    "flags": _is_flags,
    "sha256": is_sha256,
    "patient": _is_patient,
    "age_band": _is_age_band,
    "sex": _is_sex,
}

_LATER = {"patient": "", "age_band": "", "sex": ""}


def _fits(value: Mapping[str, object], fields: _Fields) -> bool:
    """Whether there are exactly these fields, each of its kind."""
    return set(value) == set(fields) and all(
        fits(value[name]) for name, fits in fields.items()
    )
