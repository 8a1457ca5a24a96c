"""A reader of findings is trained on some real scans and reads others, and volumes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool

from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.ct.report_table import labels_in, read_reports, study_rows
from ctflow_fed.ct.table_files import read_table
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.errors import ReportTableError, SettingsError
from ctflow_fed.evaluation.alignment import (
    Logits,
    ReadSet,
    alignment_figures,
    pair_figures,
)
from ctflow_fed.evaluation.features import FeatureCache, Measured
from ctflow_fed.evaluation.figure import Evaluation, Figure, not_measured
from ctflow_fed.evaluation.measuring import measure_each
from ctflow_fed.evaluation.scans import Scan
from ctflow_fed.files import digest_of
from ctflow_fed.reader import Reader
from ctflow_fed.seeds import derive_seed
from ctflow_fed.shapes import HU

__all__ = [
    "AlignmentSettings",
    "LabelledScans",
    "Pair",
    "measure_alignment",
    "read_labels",
]

HELD_OUT = 3
"""One of so many patients is held out."""

FEWEST_PATIENTS = 12

SEEN: list[object] = ["seen by the reader", 1]
"""The key of reduced scans in the cache."""


@dataclass(frozen=True)
class AlignmentSettings:
    """How long the reader is trained, and the seed of who is held out."""

    steps: int = 700
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= 10**6:
            raise SettingsError(
                f"expected 1 to 1,000,000 steps of the reader, got {self.steps}"
            )


@dataclass(frozen=True, eq=False)
class LabelledScans:
    """Scans and the 18 findings of each."""

    scans: Sequence[Scan]
    labels: Bool[np.ndarray, "scans 18"]

    @classmethod
    def of(
        cls, scans: Sequence[Scan], table: Mapping[str, Mapping[str, int]]
    ) -> "LabelledScans":
        """Join scans to labels by the names of their files.

        Raises ``ReportTableError`` where some have none; how many is told.
        """
        lacking = sum(scan.name not in table for scan in scans)
        if lacking or not scans:
            raise ReportTableError(
                f"expected labels of every volume, got none of {lacking} of "
                f"{len(scans)}; name the files in the table"
            )
        rows = [[table[scan.name].get(name, 0) for name in FINDINGS] for scan in scans]
        return cls(scans, np.array(rows) > 0)


def read_labels(path: Path) -> dict[str, dict[str, int]]:
    """Read the findings of studies: the 18 columns of a table, or its reports.

    Raises ``ReportTableError`` for a table that has neither; a row that cannot be used
    is left out.
    """
    columns, _ = read_table(path)
    if set(FINDINGS) <= set(columns):
        rows = study_rows(path, FINDINGS)
        read = {name: labels_in(row) for name, row in rows.items()}
        return {name: labels for name, labels in read.items() if labels is not None}
    reports = read_reports(path).items()
    return {name: report.labels for name, report in reports if not report.problem}


class Pair(NamedTuple):
    """Two volumes of one seed, by name; one's report has one finding more."""

    finding: str
    with_it: str
    without: str


def measure_alignment(
    real: LabelledScans,
    drawn: LabelledScans,
    *,
    pairs: Sequence[Pair],
    cache: Path,
    settings: AlignmentSettings,
) -> Evaluation:
    """Train a reader on two thirds of the real patients; let it read the others.

    What was seen of scans, and the reader, stay in ``cache``, so the same command goes
    on. Raises ``SettingsError`` for too few patients.
    """
    _refuse_unknown(pairs, drawn.scans)
    apart = _held_out([scan.patient for scan in real.scans], settings.seed)
    kept = FeatureCache(cache)
    volumes = [_seen(each.scans, kept, told) for each, told in _sides(real, drawn)]
    taught = [each for each, out in zip(volumes[0], apart, strict=True) if not out]
    others = [each for each, out in zip(volumes[0], apart, strict=True) if out]
    key = digest_of([[scan.digest for scan in real.scans], asdict(settings)])
    path = cache / f"reader-{key}.safetensors"
    reader = _reader(path, taught, real.labels[~apart], settings.steps)
    patients = [scan.patient for scan in real.scans]
    held_out = ReadSet(
        _logits(reader, others),
        real.labels[apart],
        [name for name, out in zip(patients, apart, strict=True) if out],
    )
    asked = ReadSet(
        _logits(reader, volumes[1]),
        drawn.labels,
        [scan.patient for scan in drawn.scans],
    )
    figures = alignment_figures(held_out, asked, seed=settings.seed)
    figures += _pair_figures(pairs, asked.logits, drawn.scans, held_out, settings.seed)
    made = {
        "reader_trained_on": len(taught),
        "real": len(others),
        "synthetic": len(drawn.scans),
        "settings": asdict(settings),
    }
    return Evaluation("alignment", figures, made)


def _sides(
    real: LabelledScans, drawn: LabelledScans
) -> Iterator[tuple[LabelledScans, str]]:
    yield real, "real"
    yield drawn, "synthetic"


def _held_out(patients: Sequence[str], seed: int) -> Bool[np.ndarray, " scans"]:
    names = sorted(set(patients))
    if len(names) < FEWEST_PATIENTS:
        raise SettingsError(
            f"expected real scans of {FEWEST_PATIENTS} patients or more, got "
            f"{len(names)}; a reader learns nothing from fewer"
        )
    order = np.random.default_rng(derive_seed("reader", seed)).permutation(len(names))
    out = {names[place] for place in order[: len(names) // HELD_OUT]}
    return np.array([name in out for name in patients])


def _seen(scans: Sequence[Scan], cache: FeatureCache, told: str) -> list[HU]:
    rows = measure_each(scans, _reduced, cache, SEEN, told=told)
    return [row["seen"].numpy() for row in rows]


def _reduced(volume: CTVolume) -> Measured:
    return {"seen": torch.from_numpy(Reader.reduced(volume))}


def _reader(
    path: Path, volumes: list[HU], labels: Bool[np.ndarray, "scans 18"], steps: int
) -> Reader:
    """Train a reader, or read the one that was trained on the same."""
    reader = Reader()
    if path.exists():
        reader.load(path)
    else:
        reader.train(volumes, labels, steps)
        reader.save(path)
    return reader


def _logits(reader: Reader, volumes: list[HU]) -> Logits:
    logits, _ = reader.read(volumes)
    return logits.astype(np.float64)


def _refuse_unknown(pairs: Sequence[Pair], scans: Sequence[Scan]) -> None:
    names = {scan.name for scan in scans}
    unknown = sum(not {pair.with_it, pair.without} <= names for pair in pairs)
    unread = sum(pair.finding not in FINDINGS for pair in pairs)
    if unknown or unread:
        raise ReportTableError(
            "expected pairs of synthetic files and one of the 18 findings, got "
            f"{unknown} pairs of other files and {unread} of other findings"
        )


def _pair_figures(
    pairs: Sequence[Pair],
    logits: Logits,
    scans: Sequence[Scan],
    real: ReadSet,
    seed: int,
) -> list[Figure]:
    if not pairs:
        return [
            not_measured(
                "counterfactual",
                "",
                "a finding more in the report moves its logit",
                "no table names pairs",
            )
        ]
    place = {scan.name: number for number, scan in enumerate(scans)}
    groups = {
        name: [each for each in pairs if each.finding == name]
        for name in sorted({each.finding for each in pairs})
    }
    found = {
        name: (
            logits[[place[each.with_it] for each in group]],
            logits[[place[each.without] for each in group]],
        )
        for name, group in groups.items()
    }
    return list(pair_figures(found, real, seed=seed))
