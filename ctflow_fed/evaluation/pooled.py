"""The Frechet distance of synthetic volumes from those of many sites, from sums alone.

A site writes for each window how many volumes it has, the sum of their feature vectors
and the sum of their outer products. Added up over sites they give the distance of the
pooled volumes exactly. No vector of a volume leaves a site, and one with fewer than 20
volumes writes nothing. The floor is simulated: the distance of two sets of as many
draws from the normal distribution that the sums describe.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ctflow_fed.errors import MismatchError, SettingsError, StoreError
from ctflow_fed.evaluation.distances import (
    Features,
    FeatureStatistics,
    Gaussian,
    merged,
)
from ctflow_fed.evaluation.features import WINDOWS, FeatureCache, FeatureExtractor
from ctflow_fed.evaluation.figure import Evaluation, Figure
from ctflow_fed.evaluation.halves import band
from ctflow_fed.evaluation.measuring import Lens, measure_scans
from ctflow_fed.evaluation.scans import Scan
from ctflow_fed.evaluation.scores import Interval
from ctflow_fed.files import write_atomically
from ctflow_fed.seeds import derive_seed

__all__ = ["LEAST_VOLUMES", "compare_with_sites", "write_statistics"]

LEAST_VOLUMES = 20
"""Of a site; the sums of fewer tell too much about each."""

LARGEST = 2**30  # bytes of a site's file
DRAWS = 100
CONVENTION = "not above 97.5 % of the distances of as many draws from real sums"
METHOD = (
    "Frechet distance of volumes from sums over sites; floor and interval simulated"
)


def write_statistics(
    scans: Sequence[Scan], lens: Lens, cache: Path, path: Path
) -> None:
    """Write the sums of one site's volumes.

    Raises ``SettingsError`` for fewer than 20 volumes, each of another patient.
    """
    if len({scan.patient for scan in scans}) < max(LEAST_VOLUMES, len(scans)):
        raise SettingsError(
            f"expected {LEAST_VOLUMES} volumes or more, each of another patient, got "
            f"{len(scans)} of {len({scan.patient for scan in scans})} patients; a mean "
            "of fewer tells too much"
        )
    table = measure_scans(scans, lens, FeatureCache(cache))
    arrays: dict[str, Tensor] = {}
    for window in WINDOWS:
        sums = FeatureStatistics.of(table[f"{window}/volume"])
        arrays[f"{window}/count"] = torch.tensor(sums.count)
        arrays[f"{window}/total"] = torch.from_numpy(sums.total)
        arrays[f"{window}/outer"] = torch.from_numpy(sums.outer)
    told = {"extractor": lens.volumes.extractor_id}
    write_atomically(path, lambda partial: save_file(arrays, partial, told))


def compare_with_sites(
    sites: Sequence[Path], synthetic: Sequence[Scan], lens: Lens, cache: Path, seed: int
) -> Evaluation:
    """Return the distance of synthetic volumes from those of all sites, by window.

    As many synthetic volumes are taken, by lot, as the sites have together.

    Raises ``SettingsError`` where there are fewer, ``StoreError`` for a file that holds
    no such sums and ``MismatchError`` where they were made with another extractor.
    """
    real = [_read(path, lens.volumes) for path in sites]
    pooled = {w: merged([s[w] for s in real], least=LEAST_VOLUMES) for w in WINDOWS}
    count = pooled["lung"].count
    if len(synthetic) < count:
        raise SettingsError(
            f"expected {count} synthetic volumes or more, as many as the sites have, "
            f"got {len(synthetic)}; draw more, or ask fewer sites"
        )
    rng = np.random.default_rng(derive_seed("pooled", seed))
    chosen = rng.permutation(len(synthetic))[:count]
    table = measure_scans(
        [synthetic[place] for place in chosen], lens, FeatureCache(cache)
    )
    figures = [
        _figure(window, pooled[window], table[f"{window}/volume"], rng)
        for window in WINDOWS
    ]
    made = {"sites": len(sites), "extractor": lens.volumes.extractor_id, "seed": seed}
    return Evaluation("fidelity", figures, made)


def _figure(
    window: str, sums: FeatureStatistics, drawn: Features, rng: np.random.Generator
) -> Figure:
    real, synthetic, count = sums.gaussian(), Gaussian.of(drawn), sums.count
    value = real.distance(synthetic)
    floor = band(_simulated(real, real, count, rng))
    spread = band(_simulated(real, synthetic, count, rng))
    return Figure(
        "fd_3d",
        window,
        count,
        Interval(
            value,
            max(0.0, value + spread.low - spread.value),
            value + spread.high - spread.value,
        ),
        convention=CONVENTION,
        verdict="pass" if value <= floor.high else "fail",
        method=METHOD,
        floor=floor,
    )


def _simulated(
    first: Gaussian, second: Gaussian, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Return distances of two sets of draws."""

    def drawn(gaussian: Gaussian) -> Gaussian:
        noise = rng.normal(size=(count, len(gaussian.factor)))
        return Gaussian.of(gaussian.mean + noise @ gaussian.factor)

    return np.array([drawn(first).distance(drawn(second)) for _ in range(DRAWS)])


def _read(path: Path, extractor: FeatureExtractor) -> dict[str, FeatureStatistics]:
    """Read the sums of a site, which another hospital has sent."""
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError
        with safe_open(path, framework="pt") as file:
            told = (file.metadata() or {}).get("extractor")
        arrays = load_file(path)
        found = {window: _sums(arrays, window) for window in WINDOWS}
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        raise StoreError(
            "expected the sums of a site's features, got a file that holds none; let "
            "the site make it again with: ctflow evaluate statistics"
        ) from None
    if told != extractor.extractor_id:
        raise MismatchError(
            "expected sums that were made with the same extractor, got those of "
            "another; name that one, or let the site make them again"
        )
    return found


def _sums(arrays: Mapping[str, Tensor], window: str) -> FeatureStatistics:
    """Return the sums of a window; what cannot be such sums is refused."""
    names = ("count", "total", "outer")
    count, total, outer = (arrays[f"{window}/{name}"].numpy() for name in names)
    length = total.size
    fits = (
        count.shape == ()
        and count.dtype == np.int64
        and total.dtype == outer.dtype == np.float64
        and total.shape == (length,)
        and outer.shape == (length, length)
        and np.isfinite(outer).all()
        and np.isfinite(total).all()
        and np.allclose(outer, outer.T)
        and (np.diag(outer) * count >= total**2 * (1 - 1e-9)).all()
    )
    if not fits:
        raise ValueError
    return FeatureStatistics(int(count), total, outer)
