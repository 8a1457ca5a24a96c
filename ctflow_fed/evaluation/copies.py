"""Does a set of volumes repeat scans? Every figure beside that of real other patients.

What is asked of a synthetic volume (is it more alike to a scan than patients are to one
another?) does not depend on how many synthetic volumes there are, so that sets of any
size are compared; rules that ask of a scan how near the nearest synthetic volume is
raise the alarm by numbers alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ctflow_fed.copies import CopyCheck, CopyIndex
from ctflow_fed.copies.index import DEVIATIONS
from ctflow_fed.copies.picture import Pictures, likeness
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.evaluation.figure import Figure, Verdict, not_measured
from ctflow_fed.evaluation.scores import COVERAGE, Interval
from ctflow_fed.evaluation.shares import share
from ctflow_fed.seeds import derive_seed

__all__ = ["Compared", "copy_figures", "hidden_copies", "replay_figure"]

MOST = 0.02
"""Of volumes that may raise the alarm."""

CERTAIN = 0.95
"""More alike are none but copies, whatever the alarm."""

SLACK = 0.02
"""How much less authentic than other patients a set may be."""

DRAWS = 2000

SHIFT = 3  # voxels along every axis
NOISE_HU = 20


@dataclass(frozen=True)
class Compared:
    """What was compared with the index of the scans that were trained on.

    ``strangers`` are scans of other patients; ``planted`` copies of scans by how they
    were hidden.
    """

    synthetic: Sequence[CopyCheck]
    strangers: Sequence[CopyCheck]
    planted: Mapping[str, Sequence[CopyCheck]]


def hidden_copies(volume: CTVolume, seed: int) -> dict[str, CTVolume]:
    """Return copies of a scan, each hidden in another way, the last in all of them."""
    noise = np.random.default_rng(derive_seed("hidden", seed))
    ways: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "mirrored": lambda hu: hu[:, :, ::-1],
        "moved": lambda hu: np.pad(hu, SHIFT, mode="edge")[
            2 * SHIFT :, : -2 * SHIFT, 2 * SHIFT :
        ],
        "grainy": lambda hu: (hu + noise.normal(0, NOISE_HU, hu.shape)).round(),
    }
    hidden = {name: way(volume.hu) for name, way in ways.items()}
    hidden["all"] = ways["grainy"](ways["moved"](hidden["mirrored"]))
    return {
        name: CTVolume(hu.clip(-1024, 32767).astype(np.int16), volume.affine)
        for name, hu in hidden.items()
    }


def copy_figures(compared: Compared) -> list[Figure]:
    """Return what is said of a set: that the detector works, then what it found."""
    checks, strangers = compared.synthetic, compared.strangers
    return [
        *(_planted(way, found) for way, found in compared.planted.items()),
        _false_alarms(strangers),
        _copies(checks, strangers),
        _nearest_ratio(checks, strangers),
        _authenticity(checks, strangers),
    ]


def replay_figure(
    index: CopyIndex, drawn: Pictures, prompted_by: Sequence[Sequence[int]]
) -> Figure:
    """Say whether volumes that were drawn from a scan's own report repeat the scan.

    ``prompted_by`` are the scans of the patient whose report each of ``drawn`` had;
    several volumes of one report count once, by the one that is most alike.
    """
    by_prompt: dict[tuple[int, ...], float] = {}
    for picture, scans in zip(drawn, prompted_by, strict=True):
        alike = float(likeness(picture, index.pictures[list(scans)]).max())
        key = tuple(scans)
        by_prompt[key] = max(alike, by_prompt.get(key, -1.0))
    convention = f"at most {MOST:.0%} of the reports bring back their scan"
    if not by_prompt:
        return not_measured(
            "prompt_replay", "", convention, "no table says whose report was drawn"
        )
    found = share(sum(x > index.alarm for x in by_prompt.values()), len(by_prompt))
    return Figure(
        name="prompt_replay",
        part="",
        n=len(by_prompt),
        value=found,
        convention=convention,
        verdict=_passes(found.value <= MOST),
        method="reports of which a volume is more alike to the scan of the report than "
        f"{index.alarm:.3f}",
    )


def _planted(way: str, checks: Sequence[CopyCheck]) -> Figure:
    found = sum(check.is_copy for check in checks)
    return Figure(
        name="planted_copies_found",
        part=way,
        n=len(checks),
        value=share(found, len(checks)),
        convention="all of them",
        verdict=_passes(found == len(checks)),
        method="copies of scans, mirrored, moved by 3 voxels along every axis, with "
        "noise of 20 HU, or all of these, were hidden among the volumes",
    )


def _false_alarms(strangers: Sequence[CopyCheck]) -> Figure:
    found = share(sum(check.is_copy for check in strangers), len(strangers))
    return Figure(
        name="false_alarms",
        part="",
        n=len(strangers),
        value=found,
        convention=f"at most {MOST:.0%} of scans of other patients",
        verdict=_passes(found.value <= MOST),
        method="scans of patients that the index does not hold, taken for copies",
    )


def _copies(checks: Sequence[CopyCheck], strangers: Sequence[CopyCheck]) -> Figure:
    found = share(sum(check.is_copy for check in checks), len(checks))
    sure = sum(check.likeness > CERTAIN for check in checks)
    return Figure(
        name="copies",
        part="",
        n=len(checks),
        value=found,
        floor=share(sum(check.is_copy for check in strangers), len(strangers)),
        convention=f"at most {MOST:.0%}, and none more alike than {CERTAIN}",
        verdict=_passes(found.value <= MOST and not sure),
        method="largest normalised correlation with a scan over mirror images and "
        f"moves above {checks[0].alarm:.3f}, which is {DEVIATIONS:g} standard "
        "deviations above what patients are to one another; "
        f"{sure} above {CERTAIN}",
    )


def _nearest_ratio(
    checks: Sequence[CopyCheck], strangers: Sequence[CopyCheck]
) -> Figure:
    found, floor = (_median_of(_ratios(each)) for each in (checks, strangers))
    return Figure(
        name="nearest_ratio",
        part="",
        n=len(checks),
        value=found,
        floor=floor,
        convention="the median is not below that of other patients",
        verdict=_passes(found.high >= floor.low),
        method="distance to the nearest scan over the mean distance to the next 15 "
        "candidates (arXiv 2301.13188), median",
    )


def _authenticity(
    checks: Sequence[CopyCheck], strangers: Sequence[CopyCheck]
) -> Figure:
    found, floor = (
        share(sum(check.likeness < check.own for check in each), len(each))
        for each in (checks, strangers)
    )
    return Figure(
        name="authenticity",
        part="",
        n=len(checks),
        value=found,
        floor=floor,
        convention=f"not below that of other patients by more than {SLACK}",
        verdict=_passes(found.high >= floor.value - SLACK),
        method="volumes whose nearest scan is nearer to another patient's (Alaa et "
        "al., arXiv 2102.08921)",
    )


def _ratios(checks: Sequence[CopyCheck]) -> np.ndarray:
    """Return distances of unit vectors: ``d^2 = 2 - 2 likeness``."""
    alike = np.array([(check.likeness, check.others) for check in checks])
    near, far = np.sqrt(2 - 2 * np.minimum(alike, 1)).T
    return np.asarray(near / far)


def _median_of(values: np.ndarray) -> Interval:
    """Return the median and its 95 % interval by the bootstrap."""
    rng = np.random.default_rng(derive_seed("median"))
    drawn = np.median(rng.choice(values, (DRAWS, len(values))), axis=1)
    low, high = np.quantile(drawn, COVERAGE)
    return Interval(float(np.median(values)), float(low), float(high))


def _passes(well: bool) -> Verdict:
    return "pass" if well else "fail"
