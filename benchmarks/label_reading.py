"""How well labels are read from reports, finding by finding, as a table.

    python benchmarks/label_reading.py train.csv

The table is CT-RATE's of 800 reports (`report_text` and a column a finding), which is
labelled by hand. Texts that recur count once. They are split by their hash: the rules
of `ctflow_fed.ct.labels` were written while looking at the texts of one half alone, and
the figures are those of the other.
"""

import csv
import hashlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from ctflow_fed.ct.labels import FINDINGS, labels_of

Labels = dict[str, int]


class Counts(NamedTuple):
    """Labels that were read and right, read and wrong, and not read."""

    hits: int
    false: int
    missed: int

    @property
    def precision(self) -> float:
        """The part of what was read that is right."""
        return self.hits / max(1, self.hits + self.false)

    @property
    def recall(self) -> float:
        """The part of what is there that was read."""
        return self.hits / max(1, self.hits + self.missed)

    @property
    def f1(self) -> float:
        """The harmonic mean of both."""
        return 2 * self.hits / max(1, 2 * self.hits + self.false + self.missed)


def halves(path: Path) -> tuple[dict[str, Labels], dict[str, Labels]]:
    """Return the labels by text: of the half that was looked at, and of the other."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = {row["report_text"]: row for row in csv.DictReader(file)}
    parts: tuple[dict[str, Labels], dict[str, Labels]] = ({}, {})
    for text, row in rows.items():
        half = int(hashlib.sha256(text.encode()).hexdigest(), 16) % 2
        parts[half][text] = {finding: int(row[finding]) for finding in FINDINGS}
    return parts


def counts(labels: dict[str, Labels]) -> dict[str, Counts]:
    """Compare what is read from each text with its labels."""
    pairs = [(labels_of(text), truth) for text, truth in labels.items()]
    return {
        finding: Counts(
            sum(read[finding] and truth[finding] for read, truth in pairs),
            sum(read[finding] > truth[finding] for read, truth in pairs),
            sum(read[finding] < truth[finding] for read, truth in pairs),
        )
        for finding in FINDINGS
    }


def micro_and_macro(found: dict[str, Counts]) -> tuple[float, float]:
    """Return the F1 of all labels taken together, and the mean F1 of the findings."""
    together = Counts(*map(sum, zip(*found.values(), strict=True)))
    return together.f1, fmean(each.f1 for each in found.values())


def main(arguments: Sequence[str]) -> None:
    """Print the table of the half that was not looked at, and the sums of both."""
    looked_at, unseen = halves(Path(arguments[0]))
    print("| finding | reports | precision | recall | F1 |")
    print("|---|---|---|---|---|")
    start = time.process_time()
    found = counts(unseen)
    seconds = time.process_time() - start
    for finding, each in found.items():
        scores = f"{each.precision:.2f} | {each.recall:.2f} | {each.f1:.2f}"
        print(f"| {finding} | {each.hits + each.missed} | {scores} |")
    for name, part in (("unseen", found), ("looked at", counts(looked_at))):
        micro, macro = micro_and_macro(part)
        print(f"{name}: micro F1 {micro:.3f}, macro F1 {macro:.3f}")
    print(f"{len(unseen) / seconds:.0f} reports a second on one core")


if __name__ == "__main__":
    main(sys.argv[1:])
