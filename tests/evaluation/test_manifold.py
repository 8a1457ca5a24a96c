"""Precision, recall, density, coverage and the Vendi score on sets that are known."""

import numpy as np
import pytest

from ctflow_fed.evaluation.distances import rbf_kernel, squared_distances
from ctflow_fed.evaluation.manifold import Neighbourhoods, neighbourhoods, vendi_score


def compared(real: np.ndarray, synthetic: np.ndarray, nearest: int = 5):
    return neighbourhoods(
        squared_distances(real, real),
        squared_distances(synthetic, synthetic),
        squared_distances(real, synthetic),
        nearest,
    )


def modes(counts: list[int], seed: int = 0) -> np.ndarray:
    """Items of modes that lie far apart."""
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [rng.normal(size=(n, 4)) + 20 * place for place, n in enumerate(counts)]
    )


def by_definition(real, synthetic, nearest) -> Neighbourhoods:
    """The four numbers as their papers write them, item by item."""

    def distance(a, b):
        return float(((a - b) ** 2).sum() ** 0.5)

    def radius(items, at):
        others = [distance(items[at], x) for n, x in enumerate(items) if n != at]
        return sorted(others)[nearest - 1]

    own = [radius(real, n) for n in range(len(real))]
    drawn = [radius(synthetic, n) for n in range(len(synthetic))]
    balls = [
        [distance(x, y) < r for x, r in zip(real, own, strict=True)] for y in synthetic
    ]
    reached = [
        any(distance(x, y) < r for y, r in zip(synthetic, drawn, strict=True))
        for x in real
    ]
    covered = [any(ball[n] for ball in balls) for n in range(len(real))]
    return Neighbourhoods(
        precision=sum(map(any, balls)) / len(synthetic),
        recall=sum(reached) / len(real),
        density=sum(map(sum, balls)) / nearest / len(synthetic),
        coverage=sum(covered) / len(real),
    )


def test_all_four_are_what_their_papers_define():
    real, synthetic = modes([30, 10]), modes([15, 8], seed=1) + 0.5

    expected = by_definition(real, synthetic, 3)
    assert compared(real, synthetic, 3) == pytest.approx(expected, abs=1e-12)


def test_a_dropped_mode_lowers_recall_and_coverage_and_leaves_precision():
    real = modes([40, 40])
    whole, dropped = modes([40, 40], seed=1), modes([80, 0], seed=1)

    before, after = compared(real, whole), compared(real, dropped)
    assert after.recall < 0.6 < before.recall
    assert after.coverage < 0.6 < before.coverage
    assert after.precision > 0.8


def test_what_lies_elsewhere_has_no_precision():
    assert compared(modes([40]), modes([40]) + 50).precision == 0


def test_the_vendi_score_counts_what_differs():
    def vendi(items):
        return vendi_score(rbf_kernel(squared_distances(items, items), 1.0))

    apart = 100.0 * np.eye(6)
    assert vendi(apart) == pytest.approx(6)
    assert vendi(np.zeros((6, 3))) == pytest.approx(1)
    assert vendi(np.repeat(apart[:3], 2, axis=0)) == pytest.approx(3)
