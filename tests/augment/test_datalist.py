from pathlib import Path

import numpy as np
import pytest

from ctflow_fed.augment import GenerateSettings, extend, generate, plan
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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:monai")  # a reader that we lack
@pytest.mark.parametrize("kind", ["Dataset", "CacheDataset", "PersistentDataset"])
def test_monai_loads_and_collates_them_in_every_kind_of_dataset(
    real, store, kind, tmp_path
):
    data = pytest.importorskip("monai.data")
    transforms = pytest.importorskip("monai.transforms")
    options = {
        "Dataset": {},
        "CacheDataset": {"progress": False},
        "PersistentDataset": {"cache_dir": tmp_path, "track_meta": True},
    }
    load = transforms.Compose(
        [
            transforms.LoadImaged("image"),
            transforms.EnsureChannelFirstd("image"),
            transforms.Orientationd("image", "RAS", labels=None),
        ]
    )
    dataset = getattr(data, kind)(extend(real, store), load, **options[kind])

    for _ in range(2):
        for items in ([8, 0], [0, 8], [1, 2], [6, 7]):
            batch = data.list_data_collate([dataset[index] for index in items])
            assert batch["image"].shape == (2, 1, 32, 32, 8)
            assert batch["label"].shape == (2, 18)
            assert batch["synthetic"].tolist() == [index >= 3 for index in items]
            assert len(batch["report"]) == len(batch["sample_id"]) == 2
