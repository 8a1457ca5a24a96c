"""What is written down about a folder of synthetic volumes and about each of them."""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

from ctflow_fed.augment.request import LONGEST_REPORT, SynthRequest
from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.errors import StoreError
from ctflow_fed.files import digest_of

__all__ = ["USE", "Candidate", "Origin", "Setting", "SynthHeader", "SynthRecord"]

SAMPLE_FORMAT = "ctflow-fed sample 3"
HEADER_FORMAT = "ctflow-fed synthetic set 3"
LONGEST_MM = 1000.0
USE = "SYNTHETIC - NOT FOR DIAGNOSTIC USE"
VOXELS = "int16 Hounsfield units, unscaled"
MOST_NUMBERS = 64

Setting = str | int | float | list[float]
"""One setting of the sampler, as JSON holds it."""


@dataclass(frozen=True)
class Origin:
    """The generator: everything but the request that decides what is drawn.

    ``model`` is the digest of the weights; ``rounds`` and ``sites`` say how they were
    trained, by number and never by name; ``sampling`` has every setting of the sampler
    and of the quality gate that changes what is drawn. ``epsilon`` at ``delta`` is what
    training spent of the privacy of each patient; none was promised where it is None.
    """

    model: str
    codec_id: str
    encoder_id: str
    rounds: int
    sites: int
    sampling: dict[str, Setting]
    epsilon: float | None = None
    delta: float | None = None

    @cached_property
    def as_json(self) -> dict[str, Any]:
        """The generator as every sidecar has it."""
        return asdict(self)

    def sample_id(self, request: SynthRequest) -> str:
        """Return the id of what this generator draws for a request: 32 hex digits.

        Another model or another setting of the sampler is another sample.
        """
        return digest_of([request.to_json(), self.model, self.sampling])[:32]


@dataclass(frozen=True)
class SynthHeader:
    """What a folder of synthetic volumes is for: one plan, drawn by one generator."""

    plan_id: str
    planned: int
    origin: Origin

    def to_json(self) -> dict[str, Any]:
        """Return what ``synth.json`` holds."""
        return {"format": HEADER_FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, value: object) -> "SynthHeader":
        """Check and read ``synth.json``, or raise ``StoreError``."""
        if (
            not isinstance(value, dict)
            or value.get("format") != HEADER_FORMAT
            or not _fits(value, _HEADER)
            or not _fits(value["origin"], _ORIGIN)
        ):
            raise StoreError(
                "synth.json is not the header of a set of synthetic volumes; "
                "generate them again into a new folder"
            )
        known = {field.name: value["origin"][field.name] for field in fields(Origin)}
        return cls(value["plan_id"], value["planned"], Origin(**known))


@dataclass(frozen=True)
class Candidate:
    """A volume that was drawn for a request: its seed, and what the gate measured.

    ``refusal`` says why it must not be used, "" where it may.
    """

    seed: int
    numbers: dict[str, float]
    refusal: str


@dataclass(frozen=True)
class SynthRecord:
    """One synthetic volume: the content of its sidecar.

    ``candidates`` are all that were drawn for the request, in the order of drawing, of
    which the one with ``seed`` was kept; there are none without a quality gate.
    ``report`` is None where it has words that the user gave: they may come from a
    patient's report, and the sidecar travels with the volume. ``created`` is the only
    thing here that is not a function of the request and the generator.
    """

    sample_id: str
    labels: dict[str, int]
    report: str | None
    report_sha256: str
    report_source: str
    seed: int
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    bytes: int
    sha256: str
    code_version: str
    created: str
    candidates: tuple[Candidate, ...] = ()

    @property
    def refusal(self) -> str:
        """Why the gate refused the volume, "" where it did not."""
        return next(
            (each.refusal for each in self.candidates if each.seed == self.seed), ""
        )

    def to_json(self, origin: Origin) -> dict[str, Any]:
        """Return what the sidecar holds."""
        marks = {
            "format": SAMPLE_FORMAT,
            "synthetic": True,
            "use": USE,
            "voxels": VOXELS,
            "verdict": _verdict(self),
        }
        return {**marks, **asdict(self), "origin": origin.as_json}

    @classmethod
    def from_json(cls, value: object, origin: Origin) -> "SynthRecord":
        """Check and read a sidecar of a generator's volume, or raise ``StoreError``."""
        if (
            not isinstance(value, dict)
            or value.get("format") != SAMPLE_FORMAT
            or value.get("synthetic") is not True
            or value.get("origin") != origin.as_json
            or not _fits(value, _RECORD)
        ):
            raise StoreError(
                "a sidecar is damaged or of another generator; "
                "the command that made the set makes this volume again"
            )
        known = {field.name: value[field.name] for field in fields(cls)}
        slices, rows, cols = value["shape"]
        slice_mm, row_mm, col_mm = map(float, value["spacing"])
        known["candidates"] = tuple(Candidate(**each) for each in value["candidates"])
        known["shape"] = (slices, rows, cols)
        known["spacing"] = (slice_mm, row_mm, col_mm)
        return cls(**known)


def _verdict(record: SynthRecord) -> str:
    """Return in a word what became of a volume."""
    if not record.candidates:
        return "not checked"
    return "refused" if record.refusal else "passed"


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_size(value: object) -> bool:
    return type(value) is int and 0 < value <= 2**40


def _is_length(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return 0 < value <= LONGEST_MM


def _three(fits: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: (
        isinstance(value, list) and len(value) == 3 and all(map(fits, value))
    )


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 256


def _is_report(value: object) -> bool:
    return value is None or (isinstance(value, str) and len(value) <= LONGEST_REPORT)


def _is_hex(digits: int) -> Callable[[object], bool]:
    form = re.compile(rf"[0-9a-f]{{{digits}}}")
    return lambda value: isinstance(value, str) and form.fullmatch(value) is not None


def _is_labels(value: object) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == set(FINDINGS)
        and all(type(label) is int and label in (0, 1) for label in value.values())
    )


def _is_number(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) < 2**63


def _is_setting(value: object) -> bool:
    if isinstance(value, list):
        return len(value) <= 16 and all(map(_is_number, value))
    return _is_name(value) or _is_number(value)


def _is_sampling(value: object) -> bool:
    return isinstance(value, dict) and all(
        _is_name(name) and _is_setting(setting) for name, setting in value.items()
    )


def _is_spent(value: object) -> bool:
    return value is None or (_is_number(value) and value >= 0)  # type: ignore[operator]


def _is_candidates(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(each, dict)
        and set(each) == set(_CANDIDATE)
        and _fits(each, _CANDIDATE)
        for each in value
    )


def _is_numbers(value: object) -> bool:
    return (
        isinstance(value, dict)
        and len(value) <= MOST_NUMBERS
        and all(_is_name(name) and _is_number(each) for name, each in value.items())
    )


_Fields = Mapping[str, Callable[[object], bool]]

_ORIGIN: _Fields = {
    "model": _is_hex(64),
    "codec_id": _is_name,
    "encoder_id": _is_name,
    "rounds": _is_count,
    "sites": _is_count,
    "sampling": _is_sampling,
    "epsilon": _is_spent,
    "delta": _is_spent,
}

_CANDIDATE: _Fields = {
    "seed": _is_count,
    "numbers": _is_numbers,
    "refusal": lambda value: value == "" or _is_name(value),
}

_HEADER: _Fields = {
    "plan_id": _is_hex(32),
    "planned": _is_size,
    "origin": lambda value: isinstance(value, dict),
}

_RECORD: _Fields = {
    "sample_id": _is_hex(32),
    "labels": _is_labels,
    "report": _is_report,
    "report_sha256": _is_hex(64),
    "report_source": _is_name,
    "seed": _is_count,
    "shape": _three(_is_size),
    "spacing": _three(_is_length),
    "bytes": _is_size,
    "sha256": _is_hex(64),
    "code_version": _is_name,
    "created": _is_name,
    "candidates": _is_candidates,
}


def _fits(value: Mapping[str, object], expected: _Fields) -> bool:
    """Whether these fields are there, each of its kind."""
    return all(name in value and fits(value[name]) for name, fits in expected.items())
