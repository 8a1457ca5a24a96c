"""What is asked of the generator for one volume."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import NoneType
from typing import Any, Literal, get_args

from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.errors import SettingsError
from ctflow_fed.files import digest_of

__all__ = ["PromptSource", "SynthRequest"]

PromptSource = Literal["given", "sentences", "template"]
"""Whether the user gave the report, or it was composed from labels: of sentences of the
user's reports, or by the grammar of the phantoms, which alone holds nobody's words."""

LONGEST_REPORT = 20_000  # characters; the longest of CT-RATE has about 7,000
MOST_SLICES = 2048
SEEDS = 2**63
WRONG_SPACING = "the slice spacing must lie between 0.1 and 20 mm"


@dataclass(frozen=True)
class SynthRequest:
    """One volume to be drawn: a report, what it says, and how the volume lies.

    ``findings`` are the names of the findings that the report affirms, in the order
    of `FINDINGS`; ``slice_mm``, the distance of the slices, is that of the model's
    training data where it is None.
    """

    report: str
    findings: tuple[str, ...]
    seed: int
    slices: int
    slice_mm: float | None = None
    source: PromptSource = "template"

    def __post_init__(self) -> None:
        if not 0 < len(self.report.strip()) <= LONGEST_REPORT:
            raise SettingsError(
                f"a report must have 1 to {LONGEST_REPORT} characters, "
                f"got {len(self.report)}"
            )
        if self.findings != tuple(n for n in FINDINGS if n in self.findings):
            raise SettingsError(
                "findings must be names of the 18 CT-RATE findings, each once and in "
                "the order of ctflow_fed.ct.labels.FINDINGS"
            )
        if not 0 <= self.seed < SEEDS:
            raise SettingsError("a seed must be a whole number from 0 to 2**63 - 1")
        if not 0 < self.slices <= MOST_SLICES:
            raise SettingsError(
                f"a volume must have 1 to {MOST_SLICES} slices, got {self.slices}"
            )
        if self.slice_mm is not None and not 0.1 <= self.slice_mm <= 20:
            raise SettingsError(WRONG_SPACING)

    @property
    def labels(self) -> dict[str, int]:
        """0 or 1 for each of the 18 findings."""
        return {name: int(name in self.findings) for name in FINDINGS}

    @cached_property
    def request_id(self) -> str:
        """32 hexadecimal digits of the SHA-256 of the request, whatever the model."""
        return digest_of(self.to_json())[:32]

    def to_json(self) -> dict[str, Any]:
        """Return the request in canonical form: equal requests are equal here."""
        return {
            "report": self.report,
            "findings": list(self.findings),
            "seed": self.seed,
            "slices": self.slices,
            "slice_mm": None if self.slice_mm is None else float(self.slice_mm),
            "source": self.source,
        }

    @classmethod
    def from_json(cls, value: object) -> "SynthRequest":
        """Check and read a request; anything unexpected raises ``SettingsError``."""
        if not isinstance(value, dict) or not _has_kinds(value):
            raise SettingsError(
                "a request must hold a report, findings, seed, slices, slice_mm "
                "and source and nothing else; make the plan again"
            )
        try:
            slice_mm = None if value["slice_mm"] is None else float(value["slice_mm"])
        except OverflowError:  # JSON has numbers that are larger than any float
            raise SettingsError(WRONG_SPACING) from None
        findings = tuple(value["findings"])
        return cls(**{**value, "findings": findings, "slice_mm": slice_mm})


def _has_kinds(value: Mapping[str, Any]) -> bool:
    """Whether a JSON object has the keys of a request with values of their kinds."""
    kinds: dict[str, tuple[type, ...]] = {
        "report": (str,),
        "findings": (list,),
        "seed": (int,),
        "slices": (int,),
        "slice_mm": (int, float, NoneType),
        "source": (str,),
    }
    if set(value) != set(kinds):
        return False
    if not all(type(value[name]) in known for name, known in kinds.items()):
        return False
    return value["source"] in get_args(PromptSource) and all(
        isinstance(name, str) for name in value["findings"]
    )
