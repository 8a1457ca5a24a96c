"""Parts of items are nested, and hold whole patients."""

import pytest

from ctflow_fed.errors import SettingsError
from ctflow_fed.evaluation.portions import first_of, some_patients

ITEMS = [{"patient": f"p{n // 2}", "sample_id": f"s{n}"} for n in range(20)]


def ids(items):
    return {item["sample_id"] for item in items}


def test_a_fraction_is_of_patients_and_lies_in_any_larger_one():
    parts = [some_patients(ITEMS, share, seed=0) for share in (0.1, 0.5, 1.0)]

    assert [len(part) for part in parts] == [2, 10, 20]
    assert ids(parts[0]) < ids(parts[1]) < ids(parts[2])


def test_so_many_items_lie_among_more_of_them():
    assert ids(first_of(ITEMS, 3.2, seed=0)) < ids(first_of(ITEMS, 7, seed=0))
    assert len(first_of(ITEMS, 3.2, seed=0)) == 3
    assert len(first_of(ITEMS, 99, seed=0)) == 20


def test_another_seed_is_another_part():
    assert ids(first_of(ITEMS, 5, seed=0)) != ids(first_of(ITEMS, 5, seed=1))


def test_no_part_is_refused():
    for share in (0, 1.1, float("nan")):
        with pytest.raises(SettingsError):
            some_patients(ITEMS, share, seed=0)
    with pytest.raises(SettingsError):
        first_of(ITEMS, 0.0, seed=0)
