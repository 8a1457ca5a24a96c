"""Which volumes are to be drawn, decided before anything is."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ctflow_fed.augment.item import label_vector
from ctflow_fed.augment.request import PromptSource, SynthRequest
from ctflow_fed.ct.labels import FINDINGS, labels_of
from ctflow_fed.errors import SettingsError
from ctflow_fed.files import digest_of, read_json, write_json
from ctflow_fed.seeds import derive_seed

__all__ = ["Plan", "plan"]

FORMAT = "ctflow-fed plan 1"
LARGEST_TARGET = 1_000_000

SHRINKAGE = 5.0
"""Weight of a finding's prevalence, in items, against what was seen beside another:
a finding that one patient alone has must not copy that patient's other findings."""


@dataclass(frozen=True)
class Plan:
    """The volumes to be drawn, each once."""

    requests: tuple[SynthRequest, ...]

    def __post_init__(self) -> None:
        if not self.requests:
            raise SettingsError("a plan must hold at least one request, got none")
        if len({each.request_id for each in self.requests}) < len(self.requests):
            raise SettingsError("the requests of a plan must differ, got one twice")

    def __len__(self) -> int:
        return len(self.requests)

    @cached_property
    def plan_id(self) -> str:
        """32 hexadecimal digits that name this plan and no other."""
        return digest_of([each.request_id for each in self.requests])[:32]

    def positives(self) -> dict[str, int]:
        """Return how many volumes are asked to show each finding."""
        counts = Counter(name for each in self.requests for name in each.findings)
        return {name: counts[name] for name in FINDINGS}

    def describe(self) -> str:
        """Return what will be drawn, in a few lines for people."""
        slices = sorted({each.slices for each in self.requests})
        span = f"{slices[0]}" if len(slices) == 1 else f"{slices[0]} to {slices[-1]}"
        given = sum(each.source == "given" for each in self.requests)
        found = {name: count for name, count in self.positives().items() if count}
        return "\n".join(
            [
                f"plan {self.plan_id}",
                f"{len(self)} synthetic volumes of {span} slices",
                f"reports: {len(self) - given} composed from labels, {given} given",
                *(f"  {name:<36}{count:>7}" for name, count in found.items()),
            ]
        )

    def save(self, path: Path) -> None:
        """Write the plan as JSON. Given reports are in it: treat it like them."""
        requests = [each.to_json() for each in self.requests]
        write_json(path, {"format": FORMAT, "requests": requests})

    @classmethod
    def load(cls, path: Path) -> "Plan":
        """Read a plan; a file that is none raises ``SettingsError``."""
        try:
            value = read_json(path)
        except (OSError, ValueError, RecursionError):
            raise SettingsError(
                "expected a plan, found no readable JSON file; "
                "make one with: ctflow augment plan"
            ) from None
        if (
            not isinstance(value, dict)
            or value.get("format") != FORMAT
            or not isinstance(value.get("requests"), list)
        ):
            raise SettingsError(
                f"expected a file of the format '{FORMAT}'; "
                "make one with: ctflow augment plan"
            )
        return cls(tuple(map(SynthRequest.from_json, value["requests"])))


def plan(
    train_items: Sequence[Mapping[str, Any]] | None = None,
    *,
    target: Mapping[str, int] | None = None,
    reports: Sequence[str] = (),
    seed: int = 0,
    slices: int = 64,
    slice_mm: float | None = None,
) -> Plan:
    """Decide which volumes to draw; the same arguments make the same plan.

    ``target`` says how many synthetic volumes shall show each finding: exactly so many
    do. Which other findings they show is drawn from how often these occur together in
    the labels of ``train_items`` (none where there are no items), and their reports are
    composed from the labels. ``reports`` are drawn as they are, one volume each, and
    labelled by what they affirm. Nothing but labels is read from ``train_items``.
    """
    sets = list(_label_sets(_checked(target), _chances(train_items or ()), seed))
    prompts: list[tuple[str, tuple[str, ...], PromptSource]] = [
        (_composed(findings, derive_seed(seed, "report", number)), findings, "template")
        for number, findings in enumerate(sets)
    ]
    prompts += [(text, _affirmed(text), "given") for text in reports]
    return Plan(
        tuple(
            SynthRequest(
                report=text,
                findings=findings,
                seed=derive_seed(seed, "volume", number),
                slices=slices,
                slice_mm=slice_mm,
                source=source,
            )
            for number, (text, findings, source) in enumerate(prompts)
        )
    )


def _checked(target: Mapping[str, int] | None) -> dict[str, int]:
    """Return the target in the order of `FINDINGS`; none is empty."""
    target = target or {}
    unknown = sorted(set(target) - set(FINDINGS))
    if unknown:
        raise SettingsError(
            f"a target must name CT-RATE findings, got {unknown[0]!r}; "
            f"known are: {', '.join(FINDINGS)}"
        )
    if not all(0 < count <= LARGEST_TARGET for count in target.values()):
        raise SettingsError(
            f"a target must ask for 1 to {LARGEST_TARGET} volumes of a finding"
        )
    return {name: target[name] for name in FINDINGS if name in target}


def _chances(items: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Return [18, 18]: how likely the column's finding is beside the row's.

    The frequency among the items with the row's finding, shrunk towards the column's
    prevalence.
    """
    if not items:
        return np.zeros((len(FINDINGS), len(FINDINGS)))
    present = np.stack([label_vector(each) > 0.5 for each in items]).astype(float)
    together, alone = present.T @ present, present.sum(0)[:, None]
    expected = SHRINKAGE * present.mean(0)
    chances: np.ndarray = (together + expected) / (alone + SHRINKAGE)
    return chances


def _label_sets(
    target: Mapping[str, int], chances: np.ndarray, seed: int
) -> Iterator[tuple[str, ...]]:
    """Yield sets of findings until each finding of the target has its count.

    Each set is begun by the finding that lacks most; a finding of the target that has
    its count joins no other set.
    """
    rng = np.random.default_rng(derive_seed(seed, "findings"))
    lacking = dict(target)
    while any(lacking.values()):
        first = max(lacking, key=lambda name: lacking[name])
        drawn = rng.random(len(FINDINGS)) < chances[FINDINGS.index(first)]
        found = tuple(
            name
            for name, joins in zip(FINDINGS, drawn, strict=True)
            if name == first or (joins and lacking.get(name, 1))
        )
        lacking = {name: count - (name in found) for name, count in lacking.items()}
        yield found


def _composed(findings: tuple[str, ...], seed: int) -> str:
    """Return a report that affirms these findings and no other."""
    from ctflow_fed.ct.phantom import compose  # heavier than the rest of a plan

    labels = {name: int(name in findings) for name in FINDINGS}
    return " ".join(compose(labels, seed))  # as the intake joins them


def _affirmed(report: str) -> tuple[str, ...]:
    """Return the findings that a report affirms."""
    labels = labels_of(report)
    return tuple(name for name in FINDINGS if labels[name])
