"""Distances of sets of vectors: known truth, and agreement with other libraries."""

import numpy as np
import pytest
import torch
from monai.metrics.fid import get_fid_score
from scipy.linalg import sqrtm
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import poly_mmd

from ctflow_fed.errors import MismatchError, SettingsError
from ctflow_fed.evaluation.distances import (
    FeatureStatistics,
    frechet_distance,
    kernel_distance,
    merged,
    rbf_kernel,
    squared_distances,
    unbiased_mmd,
)


def features(count: int, length: int = 12, *, shift: float = 0.0, seed: int = 0):
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(length, length)) / np.sqrt(length)
    return rng.normal(size=(count, length)) @ mixed + shift


class Identity(torch.nn.Module):
    num_features = 12

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images


def test_the_frechet_distance_is_that_of_torchmetrics():
    first, second = features(80), features(60, shift=0.3, seed=1)
    metric = FrechetInceptionDistance(feature=Identity(), normalize=True)
    metric.set_dtype(torch.float64)
    metric.update(torch.from_numpy(first), real=True)
    metric.update(torch.from_numpy(second), real=False)

    found = frechet_distance(first, second)
    assert found == pytest.approx(float(metric.compute()), abs=1e-6)


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")
def test_the_frechet_distance_is_that_of_monai():
    first, second = features(80), features(60, shift=0.3, seed=1)

    theirs = get_fid_score(torch.from_numpy(first), torch.from_numpy(second))
    assert frechet_distance(first, second) == pytest.approx(float(theirs), abs=1e-6)


def test_with_fewer_items_than_features_it_is_still_the_formula():
    first, second = features(9), features(7, shift=0.5, seed=1)
    a, b = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    mean = ((first.mean(0) - second.mean(0)) ** 2).sum()
    # The roots of nearly singular matrices carry an error of about 1e-7 each.
    root = np.trace(sqrtm(sqrtm(a).real @ b @ sqrtm(a).real).real)

    expected = mean + np.trace(a) + np.trace(b) - 2 * root
    assert frechet_distance(first, second) == pytest.approx(expected, abs=1e-5)


def test_the_distance_of_two_gaussians_is_known():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(200_000, 3))
    second = rng.normal(size=(200_000, 3)) * 2 + [1, 0, 0]

    # |m1 - m2|^2 + sum (s1 - s2)^2
    assert frechet_distance(first, second) == pytest.approx(1 + 3, abs=0.05)


def test_kid_is_that_of_torchmetrics():
    first, second = features(40), features(40, shift=0.2, seed=1)

    theirs = poly_mmd(*map(torch.from_numpy, (first, second)))
    assert kernel_distance(first, second) == pytest.approx(float(theirs), abs=1e-6)


def test_kid_needs_no_correction_at_small_n_and_the_frechet_distance_does():
    draws = [
        (features_of(20, number), features_of(20, 1000 + number))
        for number in range(200)
    ]

    kid = np.mean([kernel_distance(*pair) for pair in draws])
    fd = np.mean([frechet_distance(*pair) for pair in draws])
    assert abs(kid) < 0.02
    assert fd > 1


def features_of(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 8))


def test_the_gaussian_mmd_is_near_zero_for_one_distribution_and_grows_with_a_shift():
    def mmd(shift: float) -> float:
        first, second = features_of(60, 0), features_of(60, 1) + shift
        within, other, across = (
            rbf_kernel(squared_distances(a, b), 8.0)
            for a, b in ((first, first), (second, second), (first, second))
        )
        return unbiased_mmd(within, other, across)

    assert abs(mmd(0)) < 0.02 < mmd(0.5) < mmd(1.0)


def test_statistics_of_sites_give_the_distance_of_the_pooled_features():
    sites = [features(count, seed=count) for count in (20, 33, 47)]
    other = features(64, shift=0.2, seed=3)
    whole = merged([FeatureStatistics.of(site) for site in sites]).gaussian()

    expected = frechet_distance(np.concatenate(sites), other)
    found = whole.distance(FeatureStatistics.of(other).gaussian())
    assert found == pytest.approx(expected, abs=1e-8)


def test_a_site_with_few_volumes_is_not_merged():
    sites = [FeatureStatistics.of(features(count)) for count in (40, 19)]

    with pytest.raises(SettingsError, match="20 volumes or more"):
        merged(sites)


def test_statistics_of_two_extractors_are_not_merged():
    sites = [FeatureStatistics.of(features(30, length)) for length in (5, 6)]

    with pytest.raises(MismatchError, match="one extractor"):
        merged(sites)
