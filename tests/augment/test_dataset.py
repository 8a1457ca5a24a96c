"""Volumes that are drawn when a loader asks for them."""

import pickle
import shutil
import time
from threading import Thread

import numpy as np
import pytest
import torch

from ctflow_fed.augment import (
    GenerateSettings,
    Plan,
    SyntheticCTDataset,
    extend,
    generate,
    mix_weights,
)
from ctflow_fed.augment.shard import WHOLE
from ctflow_fed.errors import IncompleteError, MismatchError

QUICK = GenerateSettings(steps=1, solver="euler")


@pytest.fixture
def dataset(small_plan, model, tmp_path):
    return SyntheticCTDataset(
        small_plan, model=model, out=tmp_path / "set", settings=QUICK
    )


def test_nothing_is_drawn_before_it_is_asked_for(dataset):
    item = dataset[2]

    assert len(dataset) == 4
    assert [each.sample_id for each in dataset.store.records()] == [item["sample_id"]]


def test_items_are_known_before_they_are_drawn_and_are_those_of_extend(dataset):
    known = sorted(dataset.data, key=lambda item: item["sample_id"])

    for index in range(len(dataset)):
        dataset[index]

    drawn = extend([], dataset.store)
    for ours, theirs in zip(known, drawn, strict=True):
        assert np.array_equal(ours.pop("label"), theirs.pop("label"))
        assert ours == theirs
    real = {"image": "r.nii", "label": [0] * 18, "synthetic": False}
    assert sum(mix_weights([real, *dataset.data], 1.0)) == pytest.approx(1)


def test_what_is_there_is_not_drawn_again(dataset, small_plan, model):
    store = generate(
        small_plan, model=model, out=dataset.store.folder, workers=0, settings=QUICK
    )
    before = {path: path.stat().st_mtime_ns for path in store.folder.rglob("*.*")}

    for index in range(len(dataset)):
        dataset[index]

    assert before == {p: p.stat().st_mtime_ns for p in store.folder.rglob("*.*")}


def test_a_volume_drawn_on_demand_is_the_one_that_generate_draws(
    dataset, small_plan, model, tmp_path
):
    store = generate(
        small_plan, model=model, out=tmp_path / "other", workers=0, settings=QUICK
    )

    item = dataset[1]

    sample_id = item["sample_id"]
    assert dataset.store.read(sample_id).sha256 == store.read(sample_id).sha256


def test_a_damaged_volume_is_drawn_again(dataset):
    sample_id = dataset[0]["sample_id"]
    whole = dataset.store.image(sample_id).read_bytes()
    dataset.store.image(sample_id).write_bytes(whole[:100])

    dataset[0]

    assert dataset.store.image(sample_id).read_bytes() == whole


def test_threads_that_want_the_same_volume_draw_it_once(dataset):
    drawn = []
    dataset._worker = lambda batch: drawn.append(batch) or really(batch)
    really = make_worker(dataset)

    threads = [Thread(target=dataset.__getitem__, args=(0,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert dataset.data[0]["sample_id"] in dataset.store
    assert len(drawn) == 1


def test_what_a_run_that_goes_on_may_draw_is_waited_for(dataset, model, tmp_path):
    other = SyntheticCTDataset(
        Plan(dataset.requests), model=model, out=tmp_path / "other", settings=QUICK
    )
    item = other[0]
    came = Thread(target=dataset.__getitem__, args=(0,))

    with dataset.store.runs.going_on(WHOLE):
        came.start()
        time.sleep(0.7)
        assert not list(dataset.store.folder.glob("volumes/*"))
        shutil.copytree(
            other.store.folder / "volumes", dataset.store.folder / "volumes"
        )
        came.join(10)
        assert not came.is_alive()

    made = dataset.store.sidecar(item["sample_id"])
    assert made.read_bytes() == other.store.sidecar(item["sample_id"]).read_bytes()


def test_what_cannot_be_drawn_is_said_in_one_sentence(dataset):
    dataset.store.folder.joinpath("volumes").write_text("no folder")

    with pytest.raises(IncompleteError, match="could not be drawn: FileExistsError"):
        dataset[0]


def test_the_folder_of_another_plan_is_refused(dataset, model):
    from ctflow_fed.augment import plan

    with pytest.raises(MismatchError, match="another plan"):
        SyntheticCTDataset(
            plan(target={"Emphysema": 1}, slices=8),
            model=model,
            out=dataset.store.folder,
            settings=QUICK,
        )


def test_a_caller_cannot_change_the_items_of_the_set(dataset):
    dataset[0]["label"][:] = 9

    assert dataset[0]["label"].max() == 1


def test_it_travels_to_workers_without_the_network(dataset):
    dataset[0]

    content = pickle.dumps(dataset)

    assert len(content) < 20_000
    assert pickle.loads(content)[3]["sample_id"] == dataset.data[3]["sample_id"]


@pytest.mark.slow
def test_workers_of_a_loader_share_it(dataset):
    dataset.transform = lambda item: item["sample_id"]
    loader = torch.utils.data.DataLoader(
        torch.utils.data.ConcatDataset([dataset, dataset]), batch_size=1, num_workers=2
    )

    seen = [sample_id for (sample_id,) in loader]

    assert seen == [item["sample_id"] for item in dataset.data] * 2
    assert len(dataset.store.records()) == 4


def make_worker(dataset):
    from ctflow_fed.augment.worker import SynthWorker

    return SynthWorker(dataset.model, dataset.store.folder, dataset.settings)
