from dataclasses import replace

import pytest

from ctflow_fed.ct.store import LatentStore, StoreHeader
from ctflow_fed.errors import CTFlowError, MismatchError, SettingsError
from ctflow_fed.federation import SiteFacts, agreed_header, facts_of, mean_spacing

HEADER = StoreHeader("codec", "encoder", 16, 8, 8)
A = SiteFacts(site="a", header=HEADER, studies=1, slices=10, spacing=(1.0, 1.0, 1.0))
B = SiteFacts(site="b", header=HEADER, studies=2, slices=30, spacing=(5.0, 1.0, 2.0))


def test_a_store_tells_how_much_it_holds_and_of_what_kind(haar_store):
    facts = facts_of(LatentStore.open(haar_store), "a")

    assert (facts.studies, facts.slices) == (3, 20 + 32 + 40)
    assert facts.spacing == (5.0, 8.0, 8.0)
    assert SiteFacts.from_record(facts.to_record()) == facts


def test_a_store_is_told_of_by_nothing_but_counts_and_kinds(haar_store):
    record = facts_of(LatentStore.open(haar_store), "a").to_record()

    assert set(record) == {"version", "site", "header", "studies", "slices", "spacing"}
    assert "study-" not in str(record)


def test_a_site_name_that_is_free_text_is_refused(haar_store):
    with pytest.raises(SettingsError):
        facts_of(LatentStore.open(haar_store), "Dr. Who's patients")


def test_sites_of_one_kind_agree():
    assert agreed_header([B, A]) == HEADER


@pytest.mark.parametrize("change", [{"codec_id": "x"}, {"height": 16}, {"channels": 4}])
def test_sites_that_differ_are_told_in_what(change):
    other = replace(B, header=replace(HEADER, **change))

    with pytest.raises(MismatchError, match=f"a and b differ in {next(iter(change))}"):
        agreed_header([other, A])


def test_the_spacing_is_the_mean_over_slices():
    expected = ((1.0 * 10 + 5.0 * 30) / 40, 1.0, (1.0 * 10 + 2.0 * 30) / 40)

    assert mean_spacing([B, A]) == pytest.approx(expected)


@pytest.mark.parametrize(
    "change",
    [
        {"version": "9.9.9"},
        {"site": "a b"},
        {"site": 3},
        {"header": "{"},
        {"header": "[]"},
        {"slices": 0},
        {"studies": 11},
        {"studies": True},
        {"slices": float("inf")},
        {"slices": 10.0},
        {"slices": 10**10},
        {"spacing": [1.0, 1.0]},
        {"spacing": [1.0, 1.0, float("nan")]},
        {"spacing": [1.0, 1.0, 10**400]},
        {"spacing": [1.0, 1.0, 1e308]},
        {"spacing": "111"},
        {"spacing": 3},
    ],
)
def test_facts_that_are_none_are_refused_in_a_sentence(change):
    with pytest.raises(CTFlowError):
        SiteFacts.from_record({**A.to_record(), **change})
