"""Halves over patients: disjoint, equal, and intervals that hold the truth."""

import numpy as np
import pytest

from ctflow_fed.errors import SettingsError
from ctflow_fed.evaluation.distances import frechet_distance, kernel_distance
from ctflow_fed.evaluation.halves import band, draw_halves, interval_of

PATIENTS = [f"p{n // 2}" for n in range(24)]
"""Twelve patients with two volumes each."""


def test_real_halves_share_no_patient_and_take_one_volume_of_each():
    halves = draw_halves(PATIENTS, PATIENTS, splits=20, seed=0)

    for reference, other in zip(halves.reference, halves.other, strict=True):
        owners = [PATIENTS[place] for place in (*reference, *other)]
        assert len(set(owners)) == len(owners) == 12


def test_of_the_larger_side_as_many_patients_are_taken_as_the_smaller_has():
    halves = draw_halves(PATIENTS, ["a", "b", "c", "d", "e"], splits=30, seed=0)

    assert halves.n == 2
    taken = {PATIENTS[place] for place in halves.reference.flat}
    assert len(taken) == 5


def test_the_same_seed_gives_the_same_halves_and_another_seed_others():
    one, same, other = (
        draw_halves(PATIENTS, PATIENTS, splits=5, seed=seed) for seed in (1, 1, 2)
    )

    assert np.array_equal(one.reference, same.reference)
    assert not np.array_equal(one.reference, other.reference)


def test_too_few_patients_are_refused():
    with pytest.raises(SettingsError, match="4 or more patients"):
        draw_halves(PATIENTS, ["a", "b", "c", "c"], splits=5, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("distance", [kernel_distance, frechet_distance])
@pytest.mark.parametrize("shift", [0.25, 0.4])
def test_intervals_hold_the_truth_in_90_to_99_of_100_repeats(distance, shift):
    rng, length, patients, repeats = np.random.default_rng(5), 16, 48, 100

    def items(count, move=0.0):
        return rng.normal(size=(count, length)) + move

    pairs = [(items(24), items(24, shift)) for _ in range(2000)]
    truth = np.mean([distance(*pair) for pair in pairs])  # at the size of a half
    names = [str(number) for number in range(patients)]
    held = 0
    for repeat in range(repeats):
        real, synthetic = items(patients), items(patients, shift)
        halves = draw_halves(names, names, splits=50, seed=repeat)
        chosen = zip(halves.reference, halves.synthetic, strict=True)
        values = [distance(real[a], synthetic[b]) for a, b in chosen]
        found = interval_of(np.array(values))
        held += found.low <= truth <= found.high

    assert 90 <= held <= 99


def test_the_band_holds_95_of_100_splits():
    values = np.random.default_rng(0).normal(size=1000)

    found = band(values)
    assert ((values >= found.low) & (values <= found.high)).mean() == 0.95
