"""Are synthetic volumes distributed as real ones are, by anybody's generator?"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from tqdm import tqdm

from ctflow_fed.ct.codec import SliceCodec
from ctflow_fed.errors import SettingsError
from ctflow_fed.evaluation.features import WINDOWS, FeatureCache
from ctflow_fed.evaluation.figure import Evaluation, Figure, not_measured
from ctflow_fed.evaluation.halves import Halves, band, draw_halves, interval_of
from ctflow_fed.evaluation.measuring import Lens, Table, measure_scans
from ctflow_fed.evaluation.scans import Scan
from ctflow_fed.evaluation.statistics import SHARE, Statistic, statistics_of
from ctflow_fed.machine import one_thread_each

__all__ = ["FidelitySettings", "compare_tables", "measure_fidelity"]

SMALL = 20
"""Volumes on each side below which a pass says little."""

CONVENTIONS = {
    "lower": "not above 97.5 % of the distances of real volumes from as many real ones",
    "higher": "not below 97.5 % of what real volumes get among as many real ones",
}

Values = Float64[np.ndarray, " splits"]


@dataclass(frozen=True)
class FidelitySettings:
    """How many random halves are compared, and the seed of their choice."""

    splits: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if not 10 <= self.splits <= 10_000:
            raise SettingsError(
                f"expected 10 to 10,000 splits into halves, got {self.splits}"
            )


def measure_fidelity(
    real: Sequence[Scan],
    synthetic: Sequence[Scan],
    *,
    lens: Lens,
    codec: SliceCodec,
    cache: Path,
    settings: FidelitySettings,
) -> Evaluation:
    """Compare two sets of volumes, and the real one with itself.

    The ceiling is that of real volumes after the codec. What was measured of a volume
    stays in ``cache``, so the same command goes on where it was stopped.

    Raises ``SettingsError`` for too few volumes or copies among the real ones, and
    ``VolumeError`` where some cannot be read.
    """
    _refuse_copies(real)
    patients = [[scan.patient for scan in scans] for scans in (real, synthetic)]
    halves = draw_halves(
        patients[0], patients[1], splits=settings.splits, seed=settings.seed
    )
    kept = FeatureCache(cache)
    tables = [
        measure_scans(real, lens, kept, told="real"),
        measure_scans(synthetic, lens, kept, told="synthetic"),
        measure_scans(real, lens, kept, codec=codec, told="real, through the codec"),
    ]
    return Evaluation(
        "fidelity",
        compare_tables(tables[0], tables[1], tables[2], halves),
        {
            "real": len(real),
            "synthetic": len(synthetic),
            "slices_of_a_plane": lens.count,
            "extractors": [
                {
                    "name": each.name,
                    "id": each.extractor_id,
                    "pretrained": each.pretrained,
                    "spacing_mm": each.spacing_mm,
                }
                for each in (lens.slices, lens.volumes)
            ],
            "windows": WINDOWS,
            "codec": codec.codec_id,
            "settings": asdict(settings),
        },
    )


def compare_tables(
    real: Table, synthetic: Table, coded: Table, halves: Halves
) -> list[Figure]:
    """Return a figure for each statistic of what was measured of two sets.

    ``coded`` is the real set once more, through the codec.
    """
    first, second = len(real["histogram"]), len(synthetic["histogram"])
    joint = {
        name: np.concatenate([real[name], synthetic[name], coded[name]])
        for name in real
    }
    with one_thread_each() as executor:
        statistics = list(statistics_of(joint, first, second))
        found = executor.map(lambda s: _figure(s, halves, first, second), statistics)
        bar = tqdm(found, "figures", len(statistics), unit="figure", disable=None)
        return list(bar)


def _figure(statistic: Statistic, halves: Halves, real: int, others: int) -> Figure:
    """Compare every split: with synthetic, other real, and other real through codec."""
    sides = (
        halves.synthetic + real,
        halves.other,
        halves.other + real + others,
    )
    values, floors, ceilings = (
        _over_splits(statistic.of, halves.reference, side) for side in sides
    )
    convention = CONVENTIONS[statistic.better]
    if not np.isfinite([*values, *floors]).all():
        return not_measured(
            statistic.name, statistic.part, convention, "one side has nothing of it"
        )
    value, floor = interval_of(values, statistic.limits), band(floors)
    # A share cannot be told more finely than by one volume.
    slack = 1 / halves.n if statistic.limits == SHARE else 0.0
    well = (
        value.value <= floor.high
        if statistic.better == "lower"
        else value.value >= floor.low - slack
    )
    few = f"; with {halves.n} volumes a pass says little" if halves.n < SMALL else ""
    return Figure(
        name=statistic.name,
        part=statistic.part,
        n=halves.n,
        value=value,
        unit=statistic.unit,
        floor=floor,
        ceiling=band(ceilings) if np.isfinite(ceilings).all() else None,
        convention=convention,
        verdict="pass" if well else "fail",
        method=f"{statistic.method}; mean over {len(values)} random halves{few}",
    )


def _over_splits(
    of: Callable[[np.ndarray, np.ndarray], float], first: np.ndarray, second: np.ndarray
) -> Values:
    return np.array([of(*pair) for pair in zip(first, second, strict=True)])


def _refuse_copies(real: Sequence[Scan]) -> None:
    patients: dict[str, set[str]] = {}
    for scan in real:
        patients.setdefault(scan.digest, set()).add(scan.patient)
    if any(len(owners) > 1 for owners in patients.values()):
        raise SettingsError(
            "expected different real volumes, got files that are equal to the last "
            "byte as those of several patients; remove the copies"
        )
