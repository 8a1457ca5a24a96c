"""Hospitals differ in their patients and in their scanners."""

import pytest

from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.ct.phantom import (
    HELD_OUT,
    HOSPITALS,
    Population,
    Scanner,
    draw_findings,
)
from ctflow_fed.errors import SettingsError


def share(name: str, population: Population) -> float:
    drawn = [draw_findings(seed, population) for seed in range(300)]
    return sum(name in findings for findings in drawn) / len(drawn)


@pytest.mark.parametrize(
    ("hospital", "finding"),
    [
        ("north", "Lung nodule"),
        ("coast", "Coronary artery wall calcification"),
        ("valley", "Bronchiectasis"),
    ],
)
def test_each_hospital_has_its_own_frequent_findings(hospital, finding):
    here = share(finding, HOSPITALS[hospital])
    assert here == pytest.approx(HOSPITALS[hospital].prevalence[finding], abs=0.08)
    for other in set(HOSPITALS) - {hospital}:
        assert here > 3 * share(finding, HOSPITALS[other])


def test_scanners_differ():
    noises = {population.scanner.noise_hu for population in HOSPITALS.values()}
    fields = {population.scanner.field_mm for population in HOSPITALS.values()}
    assert len(noises) == len(fields) == 3


def test_every_finding_comes_to_the_hospital_that_was_held_out():
    drawn = {name for seed in range(60) for name in draw_findings(seed, HELD_OUT)}
    assert drawn == set(FINDINGS)


def test_the_same_seed_draws_the_same_findings():
    assert draw_findings(3, HELD_OUT) == draw_findings(3, HELD_OUT)


@pytest.mark.parametrize("prevalence", [{"Fracture": 0.5}, {"Emphysema": 1.5}])
def test_an_impossible_prevalence_is_refused(prevalence):
    with pytest.raises(SettingsError):
        Population("nowhere", prevalence, Scanner())
