"""Which findings the volumes of a plan show."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ctflow_fed.augment.item import label_vector
from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.errors import ReportTableError, SettingsError
from ctflow_fed.seeds import derive_seed

__all__ = ["Findings", "Patients", "checked_target"]

LARGEST_TARGET = 1_000_000

SHRINKAGE = 5.0
"""Weight of a finding's prevalence, in items, against what was seen beside another:
a finding that one patient alone has must not copy that patient's other findings."""

NORMAL = ""
"""Stands for no finding at all where findings are counted."""

Findings = tuple[str, ...]
"""What one volume shows, in the order of `FINDINGS`."""


class Patients:
    """What is known of the findings of real patients; without items, nothing."""

    def __init__(self, items: Sequence[Mapping[str, Any]] | None) -> None:
        if items is not None and len(items) == 0:
            raise ReportTableError(
                "expected a datalist of at least one item, got an empty one; "
                "leave it out where there is none"
            )
        vectors = [label_vector(each) > 0.5 for each in items or ()]
        self.present = np.array(vectors, float).reshape(-1, len(FINDINGS))
        self.chances = self._chances()

    def __len__(self) -> int:
        return len(self.present)

    def counts(self) -> Counter[str]:
        """Return how many patients show each finding, and how many none."""
        totals = map(int, self.present.sum(0))
        counts = Counter(dict(zip(FINDINGS, totals, strict=True)))
        counts[NORMAL] = int((self.present.sum(1) == 0).sum())
        return counts

    def beside(self, first: str, rng: np.random.Generator) -> set[str]:
        """Draw what a patient with a finding shows besides."""
        drawn = rng.random(len(FINDINGS)) < self.chances[FINDINGS.index(first)]
        return {FINDINGS[place] for place in np.flatnonzero(drawn).tolist()}

    def _chances(self) -> np.ndarray:
        """Return [18, 18]: how likely the column's finding is beside the row's.

        The frequency among the patients with the row's finding, shrunk towards the
        column's prevalence.
        """
        if not len(self):
            return np.zeros((len(FINDINGS), len(FINDINGS)))
        together, alone = self.present.T @ self.present, self.present.sum(0)[:, None]
        expected = SHRINKAGE * self.present.mean(0)
        chances: np.ndarray = (together + expected) / (alone + SHRINKAGE)
        return chances

    def wanted(self, target: Mapping[str, int], seed: int) -> Iterator[Findings]:
        """Yield sets of findings until each finding of the target has its count.

        Each set is begun by the finding that lacks most; a finding of the target that
        has its count joins no other set.
        """
        rng = np.random.default_rng(derive_seed(seed, "findings"))
        lacking = dict(target)
        while any(lacking.values()):
            first = max(lacking, key=lambda name: lacking[name])
            joining = self.beside(first, rng)
            found = tuple(
                name
                for name in FINDINGS
                if name == first or (name in joining and lacking.get(name, 1))
            )
            lacking = {name: count - (name in found) for name, count in lacking.items()}
            yield found

    def evening(
        self, count: int, drawn: Iterable[Findings], apart: Collection[str], seed: int
    ) -> Iterator[Findings]:
        """Yield so many sets of findings that even out what patients show.

        Each set is begun by what real patients and synthetic ones, ``drawn`` among
        them, show least often together; no finding at all counts as one. What real
        patients never show is left out, as is what is kept ``apart``.
        """
        rng = np.random.default_rng(derive_seed(seed, "evening"))
        known = self.counts()
        counts = +known
        for found in drawn:
            counts.update(name for name in found or (NORMAL,) if known[name])
        open_to = [name for name in (*FINDINGS, NORMAL) if known[name]]
        choices = [name for name in open_to if name not in apart] or [NORMAL]
        for _ in range(count):
            first = min(choices, key=lambda name: counts[name])
            joining = self.beside(first, rng) if first else set()
            found = tuple(
                name
                for name in FINDINGS
                if name == first or (name in joining and name in choices)
            )
            counts.update(found or (NORMAL,))
            yield found


def checked_target(target: Mapping[str, int] | None) -> dict[str, int]:
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
