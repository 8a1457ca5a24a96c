"""The account of an intake: what became of each study, and why.

account.jsonl   one line a study, written when it is decided; the last one counts
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, get_args

from ctflow_fed.errors import StoreError
from ctflow_fed.files import append_json

__all__ = ["FILE", "StudyAccount", "Verdict", "note", "read_account"]

FILE = "account.jsonl"

Verdict = Literal["taken", "corrected", "refused"]
"""``corrected`` is taken too, after a change to its voxels that the reason names."""

_STUDY = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class StudyAccount:
    """What became of one study; nothing in it names a patient.

    ``study`` is the id of the study, a keyed hash of its name, also of one that was
    refused; ``reason`` is one sentence, empty for a study that was taken as it is;
    ``numbers`` are what was measured on the way (slices, spacing, fractions of tissue).
    """

    study: str
    verdict: Verdict
    reason: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)

    @property
    def refused(self) -> bool:
        """Whether the study is not in the store."""
        return self.verdict == "refused"

    @classmethod
    def from_json(cls, value: object) -> "StudyAccount":
        """Check and read one line; anything unexpected raises ``StoreError``."""
        if not isinstance(value, dict) or not _fits(value):
            raise StoreError(
                f"a line of {FILE} is no account of a study; take the studies in again "
                "into a new folder"
            )
        return cls(**value)


def note(folder: Path, account: StudyAccount) -> None:
    """Add the account of a study to the file."""
    append_json(folder / FILE, asdict(account))


def read_account(folder: Path) -> dict[str, StudyAccount]:
    """Return the latest account of every study by its id; none where none was kept."""
    path = folder / FILE
    if not path.exists():
        return {}
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
        accounts = [StudyAccount.from_json(json.loads(line)) for line in lines]
    except (OSError, ValueError, RecursionError):
        raise StoreError(
            f"expected a readable {FILE}, got one that is broken; take the studies in "
            "again into a new folder"
        ) from None
    return {account.study: account for account in accounts}


def _fits(value: Mapping[str, object]) -> bool:
    return (
        set(value) == {"study", "verdict", "reason", "numbers"}
        and isinstance(value["study"], str)
        and _STUDY.fullmatch(value["study"]) is not None
        and value["verdict"] in get_args(Verdict)
        and isinstance(value["reason"], str)
        and isinstance(value["numbers"], dict)
        and all(map(_is_number, value["numbers"].values()))
    )


def _is_number(value: object) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    )
