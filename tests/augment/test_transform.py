"""Synthetic volumes in the place of real ones, by a transform."""

import numpy as np
import pytest

from ctflow_fed.augment import GenerateSettings, RandSyntheticCTd, generate, plan
from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.errors import CTFlowError, ReportTableError, StoreError

pytest.importorskip("monai")

KEYS = {"image", "label", "report", "synthetic", "sample_id"}


@pytest.fixture(scope="module")
def store(tmp_path_factory, model):
    """Volumes of a rare and of a common finding, two each."""
    return generate(
        plan(target={"Bronchiectasis": 2, "Emphysema": 2}, slices=8),
        model=model,
        out=tmp_path_factory.mktemp("set"),
        workers=0,
        settings=GenerateSettings(steps=1, solver="euler"),
    )


def real(number, *findings):
    label = [float(name in findings) for name in FINDINGS]
    return {"image": f"real{number}.nii.gz", "label": label, "mask": "m.nii.gz"}


@pytest.fixture
def items():
    """Ten real items: one with the rare finding, three with the common one."""
    rare, common = [("Bronchiectasis",)], [("Emphysema",)] * 3
    return [real(n, *found) for n, found in enumerate(rare + common + [()] * 6)]


def findings(item):
    return {name for name, value in zip(FINDINGS, item["label"], strict=True) if value}


def test_it_swaps_with_its_probability(store, items):
    swap = RandSyntheticCTd(store, items, prob=0.3).set_random_state(seed=0)

    swapped = [swap(items[9])["synthetic"] for _ in range(2000)]

    assert np.mean(swapped) == pytest.approx(0.3, abs=0.04)


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (0, {"Bronchiectasis"}),
        (1, {"Bronchiectasis", "Emphysema"}),
        (9, {"Bronchiectasis", "Emphysema"}),
    ],
)
def test_what_comes_is_as_rare_or_rarer(store, items, place, expected):
    swap = RandSyntheticCTd(store, items, prob=1.0).set_random_state(seed=0)

    came = [findings(swap(items[place])) for _ in range(60)]

    assert set.union(*came) == expected


def test_an_item_has_the_same_keys_swapped_or_not(store, items):
    swap = RandSyntheticCTd(store, items, prob=0.5).set_random_state(seed=0)

    came = [swap(items[9]) for _ in range(20)]

    assert {item["synthetic"] for item in came} == {True, False}
    assert all(set(item) == KEYS for item in came)
    assert all(item["label"].dtype == np.float32 for item in came)


def test_where_nothing_is_rare_enough_the_real_item_stays(store):
    items = [real(0, "Lymphadenopathy"), *(real(n, "Emphysema") for n in range(1, 9))]
    items += [real(9, "Bronchiectasis"), real(10, "Bronchiectasis")]
    swap = RandSyntheticCTd(store, items, prob=1.0)

    assert not swap(items[0])["synthetic"]


def test_synthetic_items_stay_and_patients_are_replaced(store, items):
    swap = RandSyntheticCTd(store, items, prob=1.0).set_random_state(seed=0)

    came = swap({**items[9], "patient": "p1"})

    assert came["patient"] == came["sample_id"]
    assert swap(came)["sample_id"] == came["sample_id"]


def test_the_same_seed_swaps_the_same(store, items):
    first, second = (
        RandSyntheticCTd(store.folder, items, prob=0.5).set_random_state(seed=3)
        for _ in range(2)
    )

    assert [first(items[9])["sample_id"] for _ in range(20)] == [
        second(items[9])["sample_id"] for _ in range(20)
    ]


def test_it_stands_before_the_image_is_loaded(store, items):
    swap = RandSyntheticCTd(store, items)

    with pytest.raises(ReportTableError, match="not loaded yet"):
        swap({**items[0], "image": np.zeros((1, 4, 4, 4))})


def test_an_empty_set_or_list_has_nothing_to_swap(store, items, tmp_path):
    empty = type(store).create(
        tmp_path / "set", plan(target={"Emphysema": 1}), store.header.origin
    )

    with pytest.raises(StoreError, match="without any"):
        RandSyntheticCTd(empty, items)
    with pytest.raises(CTFlowError, match="at least one"):
        RandSyntheticCTd(store, [])
