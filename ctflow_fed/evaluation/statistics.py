"""The numbers of fidelity, each as a function of two halves of one table."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from ctflow_fed.evaluation.distances import (
    Gaussian,
    polynomial_kernel,
    rbf_kernel,
    squared_distances,
    unbiased_mmd,
)
from ctflow_fed.evaluation.diversity import alikeness, mean_alikeness
from ctflow_fed.evaluation.features import PLANES, WINDOWS
from ctflow_fed.evaluation.halves import Places
from ctflow_fed.evaluation.hounsfield import PARTS, wasserstein_distance
from ctflow_fed.evaluation.manifold import neighbourhoods, vendi_score
from ctflow_fed.evaluation.measuring import Table

__all__ = ["SHARE", "Statistic", "statistics_of"]

ANY = (-math.inf, math.inf)

SHARE = (0.0, 1.0)
"""The limits of a share of volumes."""

NEAREST = 5
"""The neighbour whose distance is the radius of a ball, as in the literature."""


@dataclass(frozen=True, eq=False)
class Statistic:
    """One number of two halves: the first real, the second what is judged by it.

    ``better`` says which way is nearer to real volumes; ``limits`` what it can be.
    """

    name: str
    part: str
    better: Literal["lower", "higher"]
    method: str
    of: Callable[[Places, Places], float]
    limits: tuple[float, float] = (0.0, math.inf)
    unit: str = ""


def statistics_of(table: Table, real: int, others: int) -> Iterator[Statistic]:
    """Yield all of them.

    Args:
        table: Rows are ``real`` real volumes, ``others`` synthetic ones, and perhaps
            the real ones once more, through the codec.
        real: How many there are of the one.
        others: How many there are of the other.
    """
    for window in WINDOWS:
        planes = [_frechet(table, window, plane) for plane in PLANES]
        yield from planes
        yield _mean_of(planes)
        yield _frechet(table, window, "volume")
        yield from _kernels(table[f"{window}/volume"], window, real)
    yield from _histograms(table["histogram"])
    yield _alikeness(table["thumbnail"], real, others)


def _frechet(table: Table, window: str, plane: str) -> Statistic:
    features = table[f"{window}/{plane}"]

    def of(first: Places, second: Places) -> float:
        one, other = (features[places] for places in (first, second))
        length = features.shape[-1]
        return Gaussian.of(one.reshape(-1, length)).distance(
            Gaussian.of(other.reshape(-1, length))
        )

    name = "fd_3d" if plane == "volume" else f"fd_{plane}"
    told = "volumes" if plane == "volume" else f"{plane} slices, all of a half at once"
    told = f"Frechet distance of {told}"
    return Statistic(name, window, "lower", told, _remembered(of))


def _mean_of(parts: Sequence[Statistic]) -> Statistic:
    def of(first: Places, second: Places) -> float:
        return float(np.mean([part.of(first, second) for part in parts]))

    told = "mean of fd over the three planes"
    return Statistic("fd_2.5d", parts[0].part, "lower", told, of)


def _remembered(of: Callable[[Places, Places], float]) -> Callable[..., float]:
    """Compute a number of the same halves once."""
    known: dict[tuple[bytes, bytes], float] = {}

    def of_known(first: Places, second: Places) -> float:
        key = first.tobytes(), second.tobytes()
        if key not in known:
            known[key] = of(first, second)
        return known[key]

    return of_known


def _kernels(features: np.ndarray, window: str, real: int) -> Iterator[Statistic]:
    """Yield what is computed from distances between volumes."""
    squared = squared_distances(features, features)
    own = squared[:real, :real][~np.eye(real, dtype=bool)]
    width = float(np.median(own)) or 1.0
    gauss, cubic = rbf_kernel(squared, width), polynomial_kernel(features, features)
    for name, kernel, told in (
        ("kid", cubic, "unbiased MMD^2, kernel (x y / d + 1)^3"),
        ("mmd_rbf", gauss, "unbiased MMD^2, Gaussian of the median real distance"),
    ):
        yield Statistic(name, window, "lower", told, _mmd(kernel), ANY)
    for name in ("precision", "recall", "density", "coverage"):
        told = f"share by balls to the neighbour number {NEAREST} of volumes"
        limits = (0.0, math.inf) if name == "density" else SHARE
        of = _neighbours(squared, name)
        yield Statistic(name, window, "higher", told, of, limits)
    told = "exp of the entropy of a Gaussian kernel of the judged half"
    yield Statistic(
        "vendi", window, "higher", told, lambda _, b: vendi_score(gauss[np.ix_(b, b)])
    )


def _mmd(kernel: np.ndarray) -> Callable[[Places, Places], float]:
    def of(first: Places, second: Places) -> float:
        return unbiased_mmd(
            kernel[np.ix_(first, first)],
            kernel[np.ix_(second, second)],
            kernel[np.ix_(first, second)],
        )

    return of


def _neighbours(squared: np.ndarray, name: str) -> Callable[[Places, Places], float]:
    def of(first: Places, second: Places) -> float:
        found = neighbourhoods(
            squared[np.ix_(first, first)],
            squared[np.ix_(second, second)],
            squared[np.ix_(first, second)],
            min(NEAREST, len(first) - 1),
        )
        return float(getattr(found, name))

    return of


def _histograms(histograms: np.ndarray) -> Iterator[Statistic]:
    def of_part(part: str) -> Callable[[Places, Places], float]:
        def of(first: Places, second: Places) -> float:
            one, other = (histograms[places].mean(0) for places in (first, second))
            return wasserstein_distance(one, other, part)

        return of

    for part in PARTS:
        told = "1-Wasserstein distance of histograms of 5 HU, volumes weighing alike"
        yield Statistic("hu_distance", part, "lower", told, of_part(part), unit="HU")


def _alikeness(thumbnails: np.ndarray, real: int, others: int) -> Statistic:
    """Compare each set within itself; the real ones come again from the codec."""
    images = torch.from_numpy(thumbnails)
    sets = images.split([real, others, len(images) - real - others])
    whole = np.full((len(images), len(images)), np.nan)
    start = 0
    for part in sets:
        if len(part):
            end = start + len(part)
            whole[start:end, start:end] = alikeness(part)
            start = end
    told = "mean MS-SSIM (3 scales) of pairs of thumbnails of the judged half"
    return Statistic(
        "ms_ssim_pairs",
        "lung",
        "lower",
        told,
        lambda _, b: mean_alikeness(whole[np.ix_(b, b)]),
    )
