"""A training that takes volumes while they are still being drawn."""

from itertools import islice
from threading import Thread

import pytest

from ctflow_fed.augment import (
    GenerateSettings,
    SynthStore,
    extend,
    generate,
    plan,
)
from ctflow_fed.augment.worker import load_sampler
from ctflow_fed.errors import IncompleteError, SettingsError

QUICK = {"steps": 1, "solver": "euler"}


@pytest.fixture
def asked():
    return plan(target={"Emphysema": 5}, slices=8)


@pytest.fixture
def store(asked, model, tmp_path):
    """An empty set, which the generator will find."""
    settings = GenerateSettings(**QUICK)
    return SynthStore.create(tmp_path / "set", asked, load_sampler(model, settings)[1])


def drawing(asked, model, store, **chosen):
    """Return a thread that draws the plan into the set."""
    settings = GenerateSettings(**QUICK, **chosen)
    options = {"model": model, "out": store.folder, "workers": 0, "settings": settings}
    return Thread(target=generate, args=(asked,), kwargs=options)


def test_every_volume_comes_once_while_a_generator_fills_a_bounded_disk(
    asked, model, store
):
    generator = drawing(asked, model, store, ahead=2)
    generator.start()
    seen, most = [], 0

    for item in store.stream(keep=1, patience=60):
        seen.append(item)
        most = max(most, len(list(store.folder.glob("volumes/*.nii.gz"))))
        assert store.image(item["sample_id"]).is_file()
    generator.join()

    ids = [item["sample_id"] for item in seen]
    assert sorted(ids) == sorted(
        store.header.origin.sample_id(r) for r in asked.requests
    )
    assert most <= 3  # two ahead, and the one that is being written
    status = store.status()
    assert (status.done + status.spent, status.left, status.failed) == (5, 0, 0)
    assert status.spent >= 4


def test_items_are_those_of_extend(asked, model, store):
    generate(
        asked,
        model=model,
        out=store.folder,
        workers=0,
        settings=GenerateSettings(**QUICK),
    )

    streamed = list(store.stream())

    assert [set(item) for item in streamed] == [set(item) for item in extend([], store)]
    assert [item["sample_id"] for item in streamed] == [
        item["sample_id"] for item in extend([], store)
    ]


def test_what_was_spent_is_neither_drawn_nor_streamed_again(asked, model, store):
    fill = {"model": model, "out": store.folder, "workers": 0}
    generate(asked, **fill, settings=GenerateSettings(**QUICK))
    taken = [item["sample_id"] for item in islice(store.stream(keep=1), 3)]

    generate(asked, **fill, settings=GenerateSettings(**QUICK))
    rest = [item["sample_id"] for item in store.stream()]

    assert len(rest) == 3  # the last one taken was not spent yet
    assert set(taken) | set(rest) == {
        store.header.origin.sample_id(request) for request in asked.requests
    }
    assert store.spent.ids() == sorted(taken[:2])


def test_what_was_spent_is_not_written_again_beside_a_neighbour_that_is_lacking(
    asked, model, store
):
    settings = GenerateSettings(**QUICK, batch=5)
    fill = {"model": model, "out": store.folder, "workers": 0, "settings": settings}
    generate(asked, **fill)
    taken = [item["sample_id"] for item in islice(store.stream(keep=1), 3)]
    store.image(taken[2]).unlink()

    generate(asked, **fill)

    assert set(store.ids()).isdisjoint(taken[:2])
    assert taken[2] in store


def test_a_stream_that_nobody_fills_ends_with_a_sentence(store):
    with pytest.raises(IncompleteError, match="5 volumes of the plan are not there"):
        list(store.stream(patience=0.0))


def test_refused_volumes_do_not_keep_a_stream_waiting(asked, model, tmp_path):
    store = generate(
        asked,
        model=model,
        out=tmp_path / "other",
        workers=0,
        settings=GenerateSettings(**QUICK, gate="chest"),
    )

    assert list(store.stream(patience=0.0)) == []


@pytest.mark.parametrize("wrong", [{"keep": 0}, {"keep": -1}])
def test_a_stream_keeps_something(store, wrong):
    with pytest.raises(SettingsError, match="1 volume or more"):
        next(store.stream(**wrong))


def test_a_generator_runs_ahead_by_something():
    with pytest.raises(SettingsError, match="ahead must be 1 or more"):
        GenerateSettings(ahead=0)
