"""The settings of sampling."""

from dataclasses import dataclass

from ctflow_fed.errors import SettingsError
from ctflow_fed.flow import SOLVERS

__all__ = ["SampleSettings"]


@dataclass(frozen=True, kw_only=True)
class SampleSettings:
    """How to follow the flow: ``steps`` of a ``solver`` (euler or heun) for each clip.

    Heun evaluates the network twice a step. The paper takes 200 steps of Euler.
    """

    steps: int = 12
    solver: str = "heun"

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= 10_000:
            raise SettingsError("steps must lie between 1 and 10000")
        if self.solver not in SOLVERS:
            raise SettingsError(f"solver must be one of {', '.join(SOLVERS)}")
