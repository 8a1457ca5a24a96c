"""The settings of sampling."""

from dataclasses import dataclass

from ctflow_fed.errors import SettingsError
from ctflow_fed.flow import SOLVERS

__all__ = ["SampleSettings"]


@dataclass(frozen=True, kw_only=True)
class SampleSettings:
    """How to follow the flow: ``steps`` of a ``solver`` (euler or heun) for each clip.

    Heun evaluates the network twice a step; the paper takes 200 steps of Euler.
    ``time_shift`` makes the steps near noise small (`ctflow_fed.flow.shifted`); 1 makes
    them equal, as in the paper.
    """

    steps: int = 12
    solver: str = "heun"
    time_shift: float = 4.0

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= 10_000:
            raise SettingsError("steps must lie between 1 and 10000")
        if not 1 <= self.time_shift <= 1000:
            raise SettingsError("time_shift must lie between 1 and 1000")
        if self.solver not in SOLVERS:
            raise SettingsError(f"solver must be one of {', '.join(SOLVERS)}")
