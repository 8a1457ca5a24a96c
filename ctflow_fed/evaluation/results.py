"""What the utility test is told and what it answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ctflow_fed.errors import SettingsError, StoreError
from ctflow_fed.evaluation.scores import Interval

__all__ = [
    "ArmResult",
    "Comparison",
    "FindingScore",
    "UtilityResult",
    "UtilitySettings",
]


@dataclass(frozen=True)
class UtilitySettings:
    """How the arms are trained and compared.

    ``shape`` is the grid of the classifier (x, y, z). A finding is scored if at least
    ``least_cases`` test studies have it and as many lack it. Each arm is trained
    ``repeats`` times, from different first weights.
    """

    shape: tuple[int, int, int] = (64, 64, 32)
    steps: int = 120
    batch: int = 8
    learning_rate: float = 2e-3
    repeats: int = 3
    least_cases: int = 5
    draws: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        counts = (self.steps, self.batch, self.repeats, self.least_cases, self.draws)
        if min(counts) < 1 or self.learning_rate <= 0:
            raise SettingsError(
                "steps, batch, repeats, least_cases, draws and learning_rate of the "
                "utility test must be positive"
            )
        if min(self.shape) < 16:
            raise SettingsError(
                "the classifier needs a grid of at least 16 voxels along every axis, "
                f"got {self.shape}"
            )


@dataclass(frozen=True)
class FindingScore:
    """One finding in one arm; both areas are means over the repeats.

    ``trained`` counts the items of the arm that have it; where there is none, the areas
    enter the macro means all the same.
    """

    finding: str
    trained: int
    auroc: float
    auprc: float


@dataclass(frozen=True)
class ArmResult:
    """One arm: what it was trained on and how it did on the held-out studies.

    ``auroc`` and ``auprc`` are macro means over the findings that were scored.
    """

    name: str
    items: int
    synthetic: int
    auroc: Interval
    auprc: float
    auroc_of_repeats: tuple[float, ...]
    findings: tuple[FindingScore, ...]


@dataclass(frozen=True)
class Comparison:
    """The paired difference of two arms in macro AUROC, ``arm`` minus ``reference``."""

    arm: str
    reference: str
    difference: Interval


@dataclass(frozen=True)
class UtilityResult:
    """The three arms, their differences, and what they were tested on.

    ``cases`` counts the test studies with each finding that was scored; ``unscored``
    names the findings that were too rare, or too common, in the test.
    """

    arms: tuple[ArmResult, ...]
    comparisons: tuple[Comparison, ...]
    tested: int
    cases: dict[str, int]
    unscored: tuple[str, ...]
    settings: UtilitySettings

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "UtilityResult":
        """Read what `dataclasses.asdict` made and JSON carried.

        Raises `StoreError` where it is anything else.
        """
        try:
            settings = {**value["settings"], "shape": tuple(value["settings"]["shape"])}
            return cls(
                arms=tuple(_arm_from_json(arm) for arm in value["arms"]),
                comparisons=tuple(
                    Comparison(
                        each["arm"], each["reference"], Interval(**each["difference"])
                    )
                    for each in value["comparisons"]
                ),
                tested=value["tested"],
                cases=value["cases"],
                unscored=tuple(value["unscored"]),
                settings=UtilitySettings(**settings),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise StoreError(
                "the result of a utility test has other keys than ours; run it again"
            ) from error

    def arm(self, name: str) -> ArmResult:
        """Return the arm called ``name``."""
        return next(arm for arm in self.arms if arm.name == name)

    def against(self, reference: str) -> Interval:
        """Return the gain of the synthetic arm over the arm called ``reference``."""
        return next(
            compared.difference
            for compared in self.comparisons
            if compared.reference == reference
        )


def _arm_from_json(value: dict[str, Any]) -> ArmResult:
    return ArmResult(
        **{
            **value,
            "auroc": Interval(**value["auroc"]),
            "auroc_of_repeats": tuple(value["auroc_of_repeats"]),
            "findings": tuple(FindingScore(**row) for row in value["findings"]),
        }
    )
