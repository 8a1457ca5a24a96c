"""Volumes that follow their reports are told from those that do not."""

import numpy as np
import pytest

from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.evaluation.alignment import (
    ReadSet,
    alignment_figures,
    consistency_index,
    movement,
    pair_figures,
)

READ = (0, 3, 7)
PLACE = FINDINGS.index("Cardiomegaly")


def read(count, *, seed, follows=1.0, shuffled=False):
    """A reader's logits of volumes that show three of 18 findings."""
    rng = np.random.default_rng(seed)
    labels = rng.random((count, 18)) < 0.4
    shown = rng.permutation(labels) if shuffled else labels
    logits = rng.normal(size=(count, 18))
    logits[:, READ] += 2.5 * follows * shown[:, READ]
    return ReadSet(logits, labels, [str(i) for i in range(count)])


def by_name(figures):
    return {(figure.name, figure.part): figure for figure in figures}


def test_volumes_as_true_to_their_reports_as_real_scans_pass():
    found = by_name(alignment_figures(read(150, seed=0), read(150, seed=1), seed=0))

    index = found["consistency_index", ""]
    assert index.verdict == "pass"
    assert index.value.low <= 1 <= index.value.high
    assert {part for name, part in found if name == "read_back"} == {
        FINDINGS[place] for place in READ
    }
    assert all(figure.verdict == "pass" for figure in found.values())


def test_volumes_of_other_reports_fail():
    drawn = read(150, seed=1, shuffled=True)
    found = by_name(alignment_figures(read(150, seed=0), drawn, seed=0))

    index = found["consistency_index", ""]
    assert index.value.low <= 0 <= index.value.high
    assert all(figure.verdict == "fail" for figure in found.values())


def test_the_more_volumes_follow_their_reports_the_higher_the_index():
    real = read(150, seed=0)
    values = [
        alignment_figures(real, read(150, seed=1, follows=share), seed=0)[0].value.value
        for share in (0.2, 0.5, 1.0)
    ]

    assert values == sorted(values)


def test_dealt_out_reports_are_at_a_half():
    _, *rows = alignment_figures(read(150, seed=0), read(150, seed=1), seed=0)

    assert all(row.floor.value == pytest.approx(0.5, abs=0.02) for row in rows)


def test_by_a_reader_that_reads_nothing_nothing_is_measured():
    blind = read(100, seed=0, follows=0.0)

    figures = alignment_figures(blind, read(100, seed=1), seed=0)

    assert [each.name for each in figures] == ["consistency_index", "read_back"]
    for each in figures:
        assert (each.verdict, each.value) == ("not measured", None)
        assert "give more scans" in each.method


def test_the_index_is_the_share_of_the_way_to_real_scans():
    real = {"Cardiomegaly": 0.9, "Emphysema": 1.0, "Lung nodule": 0.6}
    drawn = {"Cardiomegaly": 0.7, "Emphysema": 0.75, "Lung nodule": 0.1}

    index, names = consistency_index(drawn, real)

    assert index == pytest.approx((0.2 / 0.4 + 0.25 / 0.5) / 2)
    assert names == ["Cardiomegaly", "Emphysema"]


def pairs(count, shift, seed=0):
    rng = np.random.default_rng(seed)
    with_it, without = rng.normal(size=(2, count, 18))
    with_it[:, PLACE] += shift
    return with_it, without


@pytest.mark.parametrize(("shift", "verdict"), [(6.0, "pass"), (0.0, "fail")])
def test_a_pair_moves_the_finding_that_its_reports_differ_by(shift, verdict):
    real = read(100, seed=0)

    (found,) = pair_figures({"Cardiomegaly": pairs(20, shift)}, real, seed=0)

    assert found.verdict == verdict


def test_too_few_pairs_are_not_measured():
    real = read(100, seed=0)

    (found,) = pair_figures({"Cardiomegaly": pairs(4, 6.0)}, real, seed=0)

    assert found.verdict == "not measured"


def test_a_finding_that_moves_alone_moves_by_its_shift():
    with_it, without = pairs(4000, 3.0)

    moved = movement(with_it, without, PLACE, np.ones(18))

    assert moved == pytest.approx(3.0 / np.sqrt(2), rel=0.03)
