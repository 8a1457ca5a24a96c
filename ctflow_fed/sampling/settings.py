"""The settings of sampling."""

from collections.abc import Collection
from dataclasses import dataclass

from ctflow_fed.errors import SettingsError
from ctflow_fed.flow import SOLVERS

__all__ = ["PLANS", "SampleSettings"]

PLANS = ("anchored", "autoregressive", "ctflow")
"""In which order the clips of a volume are drawn (see `ctflow_fed.clips`)."""


@dataclass(frozen=True, kw_only=True)
class SampleSettings:
    """How to draw a volume.

    The flow of a clip is followed in ``steps`` of a ``solver``: euler and ab2 evaluate
    the network once a step, heun twice; in the last quarter of them twice as often.
    ``time_shift`` makes the steps near noise small (`ctflow_fed.flow.shift_for`).
    ``plan`` is anchored where it is None, and ctflow for a model that was trained by
    the paper's method; that one follows its own times, 1 to 0 in equal steps. A clip
    has at most ``clip_slices``; autoregressive clips know ``overlap`` slices of the one
    before.

    ``guidance`` above 1 moves away from what would be drawn without a report, at times
    within ``guided`` only (arXiv 2404.07724). ``batch_clips`` clips of 16 slices, or
    fewer longer ones, are drawn at once: it bounds memory. ``precision`` is float32,
    bfloat16, or auto: bfloat16 where the device computes it natively.
    """

    steps: int = 8
    solver: str = "ab2"
    time_shift: float = 9.0
    plan: str | None = None
    clip_slices: int = 64
    overlap: int = 4
    guidance: float = 1.0
    guided: tuple[float, float] = (0.3, 0.95)
    batch_clips: int = 16
    precision: str = "auto"

    def __post_init__(self) -> None:
        _within("steps", self.steps, 1, 10_000)
        _within("time_shift", self.time_shift, 1, 1000)
        _within("clip_slices", self.clip_slices, 4, 1024)
        if self.clip_slices % 2:
            raise SettingsError("clip_slices must be an even number")
        _within("overlap", self.overlap, 0, self.clip_slices - 1)
        _within("guidance", self.guidance, 0, 100)
        _within("batch_clips", self.batch_clips, 1, 65536)
        if not 0 <= self.guided[0] <= self.guided[1] <= 1:
            raise SettingsError("guided must be two times from 0 to 1, in rising order")
        _among("solver", self.solver, SOLVERS)
        _among("precision", self.precision, ("auto", "float32", "bfloat16"))
        if self.plan is not None:
            _among("plan", self.plan, PLANS)


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise SettingsError(f"{name} must lie between {low:g} and {high:g}")


def _among(name: str, value: str, names: Collection[str]) -> None:
    if value not in names:
        raise SettingsError(f"{name} must be one of {', '.join(names)}")
