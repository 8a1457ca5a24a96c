"""Age band and sex: all that is kept of what a source says about a person."""

import re
from collections.abc import Collection
from dataclasses import dataclass

__all__ = ["AGE_BANDS", "SEXES", "UNKNOWN", "Demographics"]

AGE_BANDS = (*(f"{start}-{start + 9}" for start in range(0, 90, 10)), "90+")
"""Decades of years; the oldest are pooled, since so few tell a patient apart."""

SEXES = ("M", "F", "O")

LONGEST_LIFE = 120
"""Years; what is beyond stands for an age that is not known."""

_AGE = re.compile(r"([0-9]{1,3})(?:\.0*)? ?([DWMY]?)")
_IN_A_YEAR = {"D": 365, "W": 52, "M": 12, "Y": 1, "": 1}
_SEXES = {"MALE": "M", "FEMALE": "F", "OTHER": "O"} | {sex: sex for sex in SEXES}


@dataclass(frozen=True)
class Demographics:
    """A band of `AGE_BANDS` and one of `SEXES`, each empty where it is not known."""

    age_band: str = ""
    sex: str = ""

    @classmethod
    def of(cls, age: str, sex: str) -> "Demographics":
        """Read an age (``063Y`` as in DICOM, or years) and a sex (``F``, ``female``).

        The age itself is not kept; whatever is neither an age nor a sex is not known.
        """
        return cls(_band(age), _SEXES.get(sex.strip().upper(), ""))

    @classmethod
    def agreed(cls, told: Collection["Demographics"]) -> "Demographics":
        """Return what several sources tell; where they differ, it is not known."""
        bands = {each.age_band for each in told} - {""}
        sexes = {each.sex for each in told} - {""}
        return cls(_only(bands), _only(sexes))


UNKNOWN = Demographics()


def _band(age: str) -> str:
    found = _AGE.fullmatch(age.strip().upper())
    if not found:
        return ""
    years = int(found[1]) // _IN_A_YEAR[found[2]]
    return AGE_BANDS[min(years // 10, 9)] if years <= LONGEST_LIFE else ""


def _only(values: set[str]) -> str:
    return values.pop() if len(values) == 1 else ""
