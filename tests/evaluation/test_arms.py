import numpy as np

from ctflow_fed.evaluation import arms_of
from ctflow_fed.evaluation.arms import EVERY_ARM


def labels_of(*shares, count, seed=0):
    return np.random.default_rng(seed).random((count, len(shares))) < shares


def test_the_control_has_as_many_items_as_the_synthetic_arm():
    arms = arms_of(labels_of(0.5, count=17), 5, seed=0)

    assert list(arms) == list(EVERY_ARM)
    assert len(arms["real"]) == len(arms["augmented"]) == 5
    assert list(arms["synthetic"]) == list(range(5, 17))
    assert len(arms["duplicated"]) == len(arms["synthetic_added"]) == 17


def test_copies_balance_the_findings_as_the_synthetic_items_do():
    real = labels_of(0.6, 0.5, 0.3, 0.3, count=40)
    synthetic = labels_of(0.2, 0.3, 0.5, 0.5, count=80, seed=1)

    every = np.concatenate([real, synthetic])

    arms = arms_of(every, 40, seed=0)

    positives = {name: every[places].sum(axis=0) for name, places in arms.items()}
    assert arms["duplicated"].max() < 40
    added = positives["synthetic_added"]
    evenly = abs(3 * positives["real"] - added).max()
    assert abs(positives["duplicated"] - added).max() < evenly / 3


def test_copies_of_studies_that_are_alike_are_spread_evenly():
    labels = np.arange(17)[:, None] >= np.full(3, 5)

    copies = np.bincount(arms_of(labels, 5, seed=0)["duplicated"])

    assert set(copies.tolist()) == {3, 4}


def test_no_patient_fills_the_control():
    labels = np.zeros((40, 2), dtype=bool)
    labels[0] = labels[10:] = True  # one real study alone shows what is wanted

    copies = np.bincount(arms_of(labels, 10, seed=0)["duplicated"])

    assert copies.max() == copies[0] == 1 + 9


def test_a_finding_that_no_real_study_has_leaves_the_others_balanced():
    real, synthetic = [[0, 0, 1], [0, 1, 0]], [[1, 0, 1]] * 3 + [[1, 1, 0]]

    arms = arms_of(np.array([*real, *synthetic], dtype=bool), 2, seed=0)

    copies = arms["duplicated"][2:]

    assert sorted(copies.tolist()) == [0, 0, 0, 1]


def test_copies_are_a_function_of_the_seed():
    labels = labels_of(0.5, 0.2, count=29)
    first, again, other = (arms_of(labels, 20, seed=seed) for seed in (1, 1, 2))

    assert (first["duplicated"] == again["duplicated"]).all()
    assert (first["duplicated"] != other["duplicated"]).any()
