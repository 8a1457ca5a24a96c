"""What a site does with scans that are not as they should be."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, get_args

from ctflow_fed.errors import SettingsError

__all__ = ["STRICT", "IntakePolicy"]


@dataclass(frozen=True)
class IntakePolicy:
    """The choices of a site; the first of each is the default and the safest.

    ``tilt``: stacks of a tilted gantry are refused, or sheared onto upright slices.
    ``uneven``: stacks with uneven gaps are refused, or resampled to even ones; where a
    slice is missing, they are always refused. ``lossy``: lossily compressed slices are
    refused, or accepted and flagged; their HU can be 65 off. ``region``: only scans
    that show lungs are taken, or any CT. ``kernel``: which of two equally thin
    reconstructions is preferred. ``synthetic``: volumes that say that they are
    synthetic are refused, since a generator that learns from them learns from itself.
    """

    tilt: Literal["refuse", "correct"] = "refuse"
    uneven: Literal["refuse", "resample"] = "refuse"
    lossy: Literal["refuse", "accept"] = "refuse"
    region: Literal["chest", "any"] = "chest"
    kernel: Literal["soft", "lung"] = "soft"
    synthetic: Literal["refuse", "accept"] = "refuse"

    @classmethod
    def from_toml(cls, path: Path) -> "IntakePolicy":
        """Read the choices from a TOML file; those that it leaves out are strict."""
        try:
            value = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise SettingsError(
                "expected a policy as TOML, got a file that cannot be read as one; "
                'write lines such as: tilt = "correct"'
            ) from None
        return cls.from_mapping(value)

    @classmethod
    def from_mapping(cls, value: Mapping[str, str]) -> "IntakePolicy":
        """Check the names of the choices and make them."""
        known = [field.name for field in fields(cls)]
        if not set(value) <= set(known):
            raise SettingsError(
                f"expected a policy of {', '.join(known)}, got another name; remove it"
            )
        for field in fields(cls):
            choices = get_args(field.type)
            if value.get(field.name, choices[0]) not in choices:
                raise SettingsError(
                    f"expected {field.name} to be {' or '.join(choices)}, got another "
                    "value; choose one of them"
                )
        return cls(**value)  # type: ignore[arg-type]  # checked just now


STRICT = IntakePolicy(region="any", synthetic="accept")
"""Everything that is not regular is refused, whatever it shows, be it a phantom."""
