"""A measured number, beside what it has to be read against, and a set of them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import ctflow_fed
from ctflow_fed.errors import StoreError
from ctflow_fed.evaluation.scores import Interval
from ctflow_fed.files import write_json

__all__ = ["SCHEMA", "Evaluation", "Figure", "Verdict", "not_measured"]

SCHEMA = 1
"""The version of the JSON file."""

Verdict = Literal["pass", "fail", "not measured"]

LIBRARIES = ("numpy", "torch")


@dataclass(frozen=True)
class Figure:
    """One number of a set of volumes, and what it says.

    Args:
        name: What is measured, as in ``fd_3d``.
        part: Of what: a window, a tissue, a length, or nothing.
        n: Volumes on each side, each of another patient.
        value: The number with its 95 % interval; none where it was not measured.
        unit: HU, dB, mm or nothing.
        floor: The same of real volumes against other real ones, at the same n.
        ceiling: The same of real volumes that went through the codec.
        convention: When it passes.
        verdict: ``pass``, ``fail`` or ``not measured``.
        method: How it was made.
    """

    name: str
    part: str
    n: int
    value: Interval | None
    convention: str
    verdict: Verdict
    method: str
    unit: str = ""
    floor: Interval | None = None
    ceiling: Interval | None = None


@dataclass(frozen=True)
class Evaluation:
    """What one command measured: its figures, and what they were made with."""

    kind: str
    figures: Sequence[Figure]
    made: Mapping[str, object]

    def to_json(self) -> dict[str, object]:
        """Return what JSON can carry."""
        return {
            "schema": SCHEMA,
            "kind": self.kind,
            "made": {**self.made, "versions": _versions()},
            "figures": [asdict(figure) for figure in self.figures],
        }

    @classmethod
    def from_json(cls, value: object) -> "Evaluation":
        """Read what `to_json` made; raises ``StoreError`` where it is anything else."""
        try:
            if not isinstance(value, dict) or value["schema"] != SCHEMA:
                raise ValueError
            figures = [_figure_of(each) for each in value["figures"]]
            return cls(str(value["kind"]), figures, dict(value["made"]))
        except (KeyError, TypeError, ValueError):
            raise StoreError(
                f"expected the result of an evaluation of schema {SCHEMA}, got other "
                "keys or values; evaluate again"
            ) from None

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        write_json(path, self.to_json())


def not_measured(name: str, part: str, convention: str, reason: str) -> Figure:
    """Return the figure of what could not be measured, and why."""
    return Figure(name, part, 0, None, convention, "not measured", reason)


def _figure_of(value: Mapping[str, Any]) -> Figure:
    """Read a figure, whose numbers are numbers and whose words are words."""
    if value["verdict"] not in get_args(Verdict):
        raise ValueError
    return Figure(
        name=str(value["name"]),
        part=str(value["part"]),
        n=int(value["n"]),
        value=_interval_of(value["value"]),
        convention=str(value["convention"]),
        verdict=value["verdict"],
        method=str(value["method"]),
        unit=str(value["unit"]),
        floor=_interval_of(value["floor"]),
        ceiling=_interval_of(value["ceiling"]),
    )


def _interval_of(value: Mapping[str, Any] | None) -> Interval | None:
    if value is None:
        return None
    return Interval(float(value["value"]), float(value["low"]), float(value["high"]))


def _versions() -> dict[str, str]:
    own = {"ctflow-fed": ctflow_fed.__version__}
    return own | {name: version(name) for name in LIBRARIES}
