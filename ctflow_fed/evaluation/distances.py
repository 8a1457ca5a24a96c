"""How far two sets of feature vectors lie apart.

Every distance of sets of one size is biased alike: compare a Frechet distance only
with others at the same n, best with that of real volumes from real ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from ctflow_fed.errors import MismatchError, SettingsError

__all__ = [
    "FeatureStatistics",
    "Features",
    "Gaussian",
    "frechet_distance",
    "kernel_distance",
    "merged",
    "polynomial_kernel",
    "rbf_kernel",
    "squared_distances",
    "unbiased_mmd",
]

Features = Float64[np.ndarray, "_ features"]
Kernel = Float64[np.ndarray, "_ _"]


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A normal distribution: its mean and a factor F of its covariance, ``F^T F``."""

    mean: Float64[np.ndarray, " features"]
    factor: Float64[np.ndarray, "rank features"]

    @classmethod
    def of(cls, features: Features) -> "Gaussian":
        """Fit one to two items or more, with the unbiased covariance."""
        mean = features.mean(0)
        centred = (features - mean) / np.sqrt(len(features) - 1)
        rows, columns = centred.shape
        small = np.asarray(np.linalg.qr(centred, "r")) if rows > columns else centred
        return cls(mean, small)

    def distance(self, other: "Gaussian") -> float:
        """Return the squared Frechet (2-Wasserstein) distance of two Gaussians."""
        # tr (A B)^(1/2) is the sum of the singular values of F_a F_b^T, exactly so and
        # without the root of a matrix that is nearly singular.
        overlap = np.linalg.svd(self.factor @ other.factor.T, compute_uv=False).sum()
        traces = (self.factor**2).sum() + (other.factor**2).sum()
        return float(((self.mean - other.mean) ** 2).sum() + traces - 2 * overlap)


def frechet_distance(first: Features, second: Features) -> float:
    """Return the Frechet distance of Gaussians fitted to two sets of features."""
    return Gaussian.of(first).distance(Gaussian.of(second))


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """All that a Frechet distance asks of a set of features; it adds up over sites.

    The distance of merged statistics is that of the pooled features, exactly. Of a site
    that has few volumes they tell much about each: `merged` refuses such a site, and
    the sums should travel under secure aggregation.
    """

    count: int
    total: Float64[np.ndarray, " features"]
    outer: Float64[np.ndarray, "features features"]

    @classmethod
    def of(cls, features: Features) -> "FeatureStatistics":
        """Add up the features of one site."""
        return cls(len(features), features.sum(0), features.T @ features)

    def gaussian(self) -> Gaussian:
        """Return the Gaussian that the pooled features have."""
        mean = self.total / self.count
        scatter = self.outer - self.count * np.outer(mean, mean)
        values, vectors = np.linalg.eigh(scatter / (self.count - 1))
        return Gaussian(mean, np.sqrt(values.clip(0))[:, None] * vectors.T)


def merged(parts: Sequence[FeatureStatistics], *, least: int = 20) -> FeatureStatistics:
    """Add the statistics of sites.

    Raises ``SettingsError`` where there is none, or where one has fewer than ``least``
    items (2 at least); ``MismatchError`` where their features are not of one length.
    """
    if not parts or min(part.count for part in parts) < max(2, least):
        raise SettingsError(
            f"expected sites with {max(2, least)} volumes or more each, got none or "
            "one with fewer, of which a mean tells too much; leave that site out"
        )
    if len({part.outer.shape for part in parts}) > 1:
        raise MismatchError(
            "expected the statistics of one extractor, got vectors of several lengths; "
            "make them with the same one"
        )
    return FeatureStatistics(
        sum(part.count for part in parts),
        np.sum([part.total for part in parts], axis=0),
        np.sum([part.outer for part in parts], axis=0),
    )


def kernel_distance(first: Features, second: Features) -> float:
    """Return the unbiased MMD^2 with the kernel ``(x y / d + 1)^3`` (KID)."""
    return unbiased_mmd(
        polynomial_kernel(first, first),
        polynomial_kernel(second, second),
        polynomial_kernel(first, second),
    )


def unbiased_mmd(first: Kernel, second: Kernel, across: Kernel) -> float:
    """Return MMD^2 from the kernel within each set and across them, without bias."""
    return _within(first) + _within(second) - 2 * float(across.mean())


def polynomial_kernel(first: Features, second: Features) -> Kernel:
    """Return ``(x y / d + 1)^3``, the kernel of KID (Binkowski et al. 2018)."""
    product: np.ndarray = (first @ second.T / first.shape[1] + 1) ** 3
    return product


def rbf_kernel(squared: Kernel, squared_width: float) -> Kernel:
    """Return ``exp(-|x - y|^2 / (2 w^2))`` of squared distances."""
    product: np.ndarray = np.exp(-squared / (2 * squared_width))
    return product


def squared_distances(first: Features, second: Features) -> Kernel:
    """Return the squared Euclidean distance of every pair."""
    lengths = (first**2).sum(1)[:, None] + (second**2).sum(1)[None]
    product: np.ndarray = np.maximum(lengths - 2 * first @ second.T, 0)
    return product


def _within(kernel: Kernel) -> float:
    """Return the mean over pairs of different items."""
    count = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (count * (count - 1)))
