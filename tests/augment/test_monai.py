"""Every kind of dataset and loader that MONAI has takes our items and our classes."""

import json

import numpy as np
import pytest
import torch

from ctflow_fed.augment import (
    GenerateSettings,
    RandSyntheticCTd,
    SyntheticCTDataset,
    extend,
    generate,
    plan,
    write_datalist,
)
from ctflow_fed.ct.labels import FINDINGS

data = pytest.importorskip("monai.data")
from monai.bundle import ConfigParser  # noqa: E402  # only where there is MONAI
from monai.transforms import (  # noqa: E402
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    Orientationd,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning:monai"),  # a reader that we lack
    pytest.mark.filterwarnings("error:Corrupt cache"),
]

QUICK = GenerateSettings(steps=1, solver="euler")
EMPHYSEMA = FINDINGS.index("Emphysema")

KINDS = {
    "Dataset": lambda items, load, folder: data.Dataset(items, load),
    "CacheDataset": lambda items, load, folder: data.CacheDataset(
        items, load, progress=False
    ),
    "PersistentDataset": lambda items, load, folder: data.PersistentDataset(
        items,
        load,
        cache_dir=folder / "cache",
        track_meta=True,
        weights_only=False,
    ),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory, model):
    """A finished set of six volumes."""
    return generate(
        plan(target={"Emphysema": 6}, slices=8),
        model=model,
        out=tmp_path_factory.mktemp("set"),
        workers=0,
        settings=QUICK,
    )


@pytest.fixture
def real(store):
    """Three real items; their pixels are borrowed."""
    return [
        {"image": store.image(each.sample_id), "label": [0] * 18}
        for each in store.records()[:3]
    ]


def loading():
    return [
        LoadImaged("image"),
        EnsureChannelFirstd("image"),
        Orientationd("image", "RAS", labels=None),
    ]


def check(batch, size=2):
    assert batch["image"].shape == (size, 1, 32, 32, 8)
    assert batch["label"].shape == (size, 18)
    assert (batch["label"][:, EMPHYSEMA] > 0).tolist() == batch["synthetic"].tolist()
    assert len(batch["report"]) == len(batch["sample_id"]) == size
    assert batch["image"].meta["affine"].shape == (size, 4, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_items_load_and_collate_in_every_kind_of_dataset(real, store, kind, tmp_path):
    dataset = KINDS[kind](extend(real, store), Compose(loading()), tmp_path)

    for _ in range(2):
        for chosen in ([8, 0], [0, 8], [1, 2], [6, 7]):
            check(data.list_data_collate([dataset[index] for index in chosen]))


@pytest.mark.parametrize("kind", KINDS)
def test_the_swap_works_in_every_kind_of_dataset(real, store, kind, tmp_path):
    swap = RandSyntheticCTd(store, real, prob=0.5)
    load = Compose([swap, *loading()]).set_random_state(seed=0)
    # Every new loader of MONAI begins with the same draws, those of torch's first seed.
    torch.manual_seed(0)
    loader = data.DataLoader(KINDS[kind](real, load, tmp_path), batch_size=3)

    batches = [batch for _ in range(6) for batch in loader]

    for batch in batches:
        check(batch, size=3)
    swapped = np.concatenate([batch["synthetic"].numpy() for batch in batches])
    assert 0 < swapped.mean() < 1


@pytest.mark.parametrize("kind", KINDS)
def test_volumes_are_drawn_within_every_kind_of_dataset(model, kind, tmp_path):
    lazy = SyntheticCTDataset(
        plan(target={"Emphysema": 2}, slices=8),
        model=model,
        out=tmp_path / "set",
        settings=QUICK,
    )

    dataset = KINDS[kind](lazy, Compose(loading()), tmp_path)
    (batch,) = data.ThreadDataLoader(dataset, batch_size=2, num_workers=0)

    check(batch)


def test_a_stream_is_an_iterable_dataset(store):
    dataset = data.IterableDataset(store.stream(), Compose(loading()))

    batches = list(data.ThreadDataLoader(dataset, batch_size=2, num_workers=0))

    assert len(batches) == 3
    for batch in batches:
        check(batch)


def test_a_bundle_can_name_the_swap(real, store):
    parser = ConfigParser(
        {
            "train": real,
            "swap": {
                "_target_": "ctflow_fed.augment.RandSyntheticCTd",
                "store": str(store.folder),
                "items": "@train",
                "prob": 1.0,
            },
        }
    )

    swap = parser.get_parsed_content("swap")

    assert swap(real[0])["synthetic"]


def test_auto3dseg_finds_the_folds_and_keeps_synthetic_items_out_of_validation(
    store, tmp_path
):
    auto3dseg = pytest.importorskip("monai.apps.auto3dseg.auto_runner")
    real = [{"image": f"/r{n}.nii", "label": [0] * 18} for n in range(6)]

    write_datalist(extend(real, store), tmp_path / "list.json", folds=3)

    runner = object.__new__(auto3dseg.AutoRunner)  # its reader of datalists alone
    assert runner.inspect_datalist_folds(str(tmp_path / "list.json")) == 3
    training = json.loads((tmp_path / "list.json").read_text())["training"]
    validated = [item for item in training if item.get("fold") is not None]
    assert not any(item["synthetic"] for item in validated)
