import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from ctflow_fed.augment import (
    GenerateSettings,
    extend,
    generate,
    mix_weights,
    plan,
    write_datalist,
)
from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.errors import ReportTableError, SettingsError

KEYS = {"image", "label", "report", "synthetic", "sample_id"}


@pytest.fixture(scope="module")
def store(tmp_path_factory, model):
    """A finished set of six volumes."""
    return generate(
        plan(target={"Emphysema": 6}, slices=8),
        model=model,
        out=tmp_path_factory.mktemp("set"),
        workers=0,
        settings=GenerateSettings(steps=1, solver="euler"),
    )


@pytest.fixture
def real(store):
    """Three real items; their pixels are borrowed, since only the keys matter here."""
    borrowed = [store.image(each.sample_id) for each in store.records()[:3]]
    return [{"image": path, "label": [0] * 18, "mask": "m.nii"} for path in borrowed]


def test_real_and_synthetic_items_have_the_same_keys_of_the_same_kinds(real, store):
    items = extend(real, store)

    assert [item["synthetic"] for item in items] == [False] * 3 + [True] * 6
    assert all(set(item) == KEYS for item in items)
    assert all(type(item["image"]) is str for item in items)
    assert all(item["label"].dtype == np.float32 for item in items)
    assert all(item["label"].shape == (18,) for item in items)


def test_synthetic_items_carry_their_labels_and_reports(store):
    items = extend([], store)

    assert all(item["label"][FINDINGS.index("Emphysema")] == 1 for item in items)
    assert all(Path(item["image"]).is_file() for item in items)
    assert all(item["report"] for item in items)


def test_the_items_of_the_caller_stay_as_they_were(real, store):
    before = [dict(item) for item in real]

    items = extend(real, store)
    items[0]["label"][0] = 9

    assert real == before


def test_every_item_has_an_id_of_its_own(real, store):
    ids = [item["sample_id"] for item in extend(real, store)]

    assert len(set(ids)) == len(ids)
    assert ids == [item["sample_id"] for item in extend(real, store)]


@pytest.mark.parametrize(("ratio", "added"), [(0, 0), (1 / 3, 1), (1.0, 3), (9.0, 6)])
def test_the_ratio_bounds_the_synthetic_items(real, store, ratio, added):
    items = extend(real, store, max_ratio=ratio)

    assert len(items) == 3 + added


def test_extending_again_adds_what_is_not_there_within_one_ratio(real, store):
    once = extend(real, store, max_ratio=1.0)

    twice = extend(once, store, max_ratio=2.0)

    assert sum(item["synthetic"] for item in twice) == 6
    assert len({item["sample_id"] for item in twice}) == 9


@pytest.mark.parametrize("ratio", [-1.0, float("nan"), float("inf")])
def test_a_ratio_that_is_none_is_refused(real, store, ratio):
    with pytest.raises(SettingsError, match="0 or more"):
        extend(real, store, max_ratio=ratio)


@pytest.mark.parametrize(
    "item", [{}, {"image": "a.nii"}, {"image": ["a"], "label": [0] * 18}]
)
def test_an_item_without_image_or_label_is_refused(store, item):
    with pytest.raises(ReportTableError, match="every item needs"):
        extend([item], store)


def test_a_patient_who_is_named_stays_and_every_item_then_has_one(real, store):
    real[0]["patient"] = "p1"

    items = extend(real, store)

    assert all(set(item) == KEYS | {"patient"} for item in items)
    assert items[0]["patient"] == "p1"
    assert items[-1]["patient"] == items[-1]["sample_id"]


@pytest.mark.parametrize("ratio", [0, 0.3, 1.0, 7])
def test_the_weights_mix_by_exactly_the_ratio(real, store, ratio):
    items = extend(real, store)

    weights = np.array(mix_weights(items, ratio))

    synthetic = np.array([item["synthetic"] for item in items])
    assert weights.sum() == pytest.approx(1)
    assert weights[synthetic].sum() == pytest.approx(ratio * weights[~synthetic].sum())
    assert len(set(weights)) == 2  # a kind, a weight


def test_a_sampler_draws_by_the_weights(real, store):
    items = extend(real, store)
    sampler = torch.utils.data.WeightedRandomSampler(
        mix_weights(items, 2.0), 3000, generator=torch.Generator().manual_seed(0)
    )

    share = np.mean([items[index]["synthetic"] for index in sampler])

    assert share == pytest.approx(2 / 3, abs=4 * math.sqrt(2 / 9 / 3000))


@pytest.mark.parametrize("ratio", [-1.0, float("nan"), 1.0])
def test_items_that_cannot_be_mixed_are_refused(real, ratio):
    real = [{**item, "synthetic": False} for item in real]

    with pytest.raises(SettingsError, match=r"real and synthetic|0 or more"):
        mix_weights(real, ratio)


def test_a_datalist_is_read_as_it_was_written(real, store, tmp_path):
    data = pytest.importorskip("monai.data")
    items = extend(real, store)

    write_datalist(items, tmp_path / "list.json", folds=3)
    read = data.load_decathlon_datalist(tmp_path / "list.json", is_segmentation=False)

    assert [each["image"] for each in read] == [each["image"] for each in items]
    assert [each["sample_id"] for each in read] == [each["sample_id"] for each in items]
    again = extend(read, store)
    assert [each["label"].tolist() for each in again] == [
        each["label"].tolist() for each in items
    ]


def test_paths_below_the_datalist_move_with_it(store):
    write_datalist(
        [*extend([], store), *real_pair()], store.folder / "list.json", folds=2
    )

    entries = json.loads((store.folder / "list.json").read_text())["training"]
    assert all(each["image"].startswith("volumes/") for each in entries[:6])


def test_no_fold_validates_on_synthetic_items_or_parts_a_patient(store):
    scans = [
        {"image": f"/r{n}.nii", "label": [0] * 18, "patient": f"Anna {n // 2}"}
        for n in range(12)
    ]

    write_datalist(extend(scans, store), store.folder / "list.json", folds=3)

    text = (store.folder / "list.json").read_text()
    entries = json.loads(text)["training"]
    folds = [each.get("fold") for each in entries]
    assert folds[0:12:2] == folds[1:12:2]
    assert sorted(folds[:12]) == [0] * 4 + [1] * 4 + [2] * 4
    assert folds[12:] == [None] * 6
    assert "Anna" not in text


def test_more_folds_than_patients_are_refused(store, tmp_path):
    with pytest.raises(SettingsError, match="at most one a patient"):
        write_datalist(extend(real_pair(), store), tmp_path / "list.json", folds=3)


def real_pair():
    return [{"image": f"/real{n}.nii", "label": [0] * 18} for n in range(2)]
