import json
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

import nibabel
import pytest
import torch

from ctflow_fed.augment import (
    GenerateSettings,
    Plan,
    SynthRequest,
    SynthStore,
    generate,
    plan,
)
from ctflow_fed.augment.room import Room
from ctflow_fed.augment.shard import Shard
from ctflow_fed.augment.worker import SynthWorker, load_sampler
from ctflow_fed.errors import (
    IncompleteError,
    MismatchError,
    PackageError,
    SettingsError,
)
from ctflow_fed.sampling import SampleSettings

QUICK = GenerateSettings(steps=1, solver="euler")


def digests(store):
    return {each.sample_id: each.sha256 for each in store.records()}


@pytest.fixture(scope="module")
def seven() -> Plan:
    return plan(target={"Emphysema": 4, "Lung nodule": 3}, slices=8)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, model, seven):
    """The set that nobody disturbed."""
    out = tmp_path_factory.mktemp("unbroken")
    return generate(seven, model=model, out=out, workers=0, settings=QUICK)


def test_every_request_becomes_one_volume(unbroken, seven):
    assert len(unbroken.records()) == len(seven) == 7
    assert len(set(digests(unbroken).values())) == 7


def test_the_same_call_does_nothing_twice(unbroken, seven, model):
    before = {path: path.stat().st_mtime_ns for path in unbroken.folder.glob("*/*")}

    generate(seven, model=model, out=unbroken.folder, workers=0, settings=QUICK)

    after = {path: path.stat().st_mtime_ns for path in unbroken.folder.glob("*/*")}
    assert before == after


@pytest.mark.parametrize("batch", [1, 3])
def test_what_is_lost_is_drawn_again_as_it_was(tmp_path, seven, model, batch):
    settings = GenerateSettings(steps=1, solver="euler", batch=batch)
    store = generate(seven, model=model, out=tmp_path, workers=0, settings=settings)
    before = digests(store)
    without_sidecar, cut_short, damaged, gone = list(before)[:4]
    store.sidecar(without_sidecar).unlink()
    store.image(cut_short).write_bytes(b"cut")
    store.sidecar(damaged).write_text("{")
    store.image(gone).unlink()
    (tmp_path / "volumes" / f".partial-{gone}.nii.gz").write_bytes(b"half")

    assert store.status().done == 3
    generate(seven, model=model, out=tmp_path, workers=0, settings=settings)

    assert digests(store) == before
    assert not list(tmp_path.rglob(".partial-*"))


def test_what_fails_is_counted_and_the_rest_is_done(tmp_path, seven, model, unbroken):
    blocked = unbroken.records()[2].sample_id
    obstacle = tmp_path / "volumes" / f"{blocked}.nii.gz"
    obstacle.mkdir(parents=True)
    arguments = {"model": model, "out": tmp_path, "workers": 0, "settings": QUICK}

    with pytest.raises(IncompleteError, match="1 of 7 volumes could not be drawn"):
        generate(seven, **arguments)

    failures = (tmp_path / "failed.jsonl").read_text()
    assert failures.count("\n") == 1
    assert blocked in failures
    assert "IsADirectoryError at " in failures
    obstacle.rmdir()
    store = generate(seven, **arguments)
    assert digests(store) == digests(unbroken)
    assert (tmp_path / "failed.jsonl").read_text() == ""


def test_what_is_drawn_depends_on_the_model_and_on_how_it_is_followed(
    tmp_path, seven, model, unbroken
):
    settings = GenerateSettings(steps=2, solver="heun")

    store = generate(seven, model=model, out=tmp_path, workers=0, settings=settings)

    assert not set(digests(store)) & set(digests(unbroken))
    assert not set(digests(store).values()) & set(digests(unbroken).values())


@pytest.fixture(scope="module")
def request_drawn(seven) -> SynthRequest:
    return seven.requests[0]


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 2},
        {"solver": "ab2"},
        {"plan": "autoregressive"},
        {"clip_slices": 32},
        {"overlap": 1},
        {"guidance": 1.5},
        {"precision": "float32"},
    ],
)
def test_a_sample_is_known_by_every_setting_that_changes_it(
    model, request_drawn, change
):
    one, other = (
        load_sampler(model, settings)[1]
        for settings in (QUICK, replace(QUICK, **change))
    )

    assert one.sample_id(request_drawn) != other.sample_id(request_drawn)


@pytest.mark.parametrize(
    "same",
    [
        {"batch_clips": 3},
        {"batch": 5},
        {"guidance": 1},
        {"plan": "anchored"},
        {"overlap": SampleSettings.overlap},
    ],
)
def test_a_sample_is_the_same_however_its_settings_are_said(model, request_drawn, same):
    one, other = (
        load_sampler(model, settings)[1] for settings in (QUICK, replace(QUICK, **same))
    )

    assert one == other
    assert one.sample_id(request_drawn) == other.sample_id(request_drawn)


def test_a_sampler_is_known_by_all_its_settings_but_how_many_it_draws_at_once(model):
    _, origin = load_sampler(model, GenerateSettings())

    expected = {field.name for field in fields(SampleSettings)} - {"batch_clips"}
    assert set(origin.sampling) == expected
    assert origin.sampling["steps"] == SampleSettings.steps
    assert origin.sampling["plan"] == "anchored"


def test_every_setting_of_the_sampler_that_may_be_chosen_is_one():
    chosen = {field.name for field in fields(GenerateSettings)}

    known = {field.name for field in fields(SampleSettings)}
    judging = {"gate", "candidates", "copies", "reader", "ahead"}
    assert chosen - known == {"batch", "codec", "encoder", *judging}


def test_volumes_of_several_lengths_have_the_slices_asked_for(tmp_path, model):
    lengths = (8, 20, 8, 3, 20)
    mixed = Plan(
        tuple(
            SynthRequest(report="Emphysema.", findings=(), seed=seed, slices=slices)
            for seed, slices in enumerate(lengths)
        )
    )
    settings = replace(QUICK, batch=2)

    store = generate(mixed, model=model, out=tmp_path, workers=0, settings=settings)

    drawn = {each.seed: each.shape[0] for each in store.records()}
    assert drawn == dict(enumerate(lengths))


def test_a_volume_that_its_model_ended_early_is_described_as_it_is(
    tmp_path, papers_model
):
    longer = plan(target={"Emphysema": 2}, slices=40)

    store = generate(
        longer, model=papers_model, out=tmp_path, workers=0, settings=QUICK
    )

    assert store.header.origin.sampling["plan"] == "ctflow"
    for record in store.records():
        assert 1 <= record.shape[0] <= 40
        assert nibabel.load(store.image(record.sample_id)).shape == record.shape[::-1]


def test_a_model_that_is_none_is_refused_before_anything_is_written(tmp_path, seven):
    with pytest.raises(PackageError):
        generate(seven, model=tmp_path, out=tmp_path / "set", workers=0)

    assert not (tmp_path / "set").exists()


def test_a_model_of_another_codec_is_refused_before_anything_is_written(
    tmp_path, seven, model
):
    other = shutil.copytree(model, tmp_path / "other")
    known = json.loads((other / "provenance.json").read_text())
    (other / "provenance.json").write_text(json.dumps({**known, "codec_id": "0" * 64}))

    with pytest.raises(MismatchError, match="trained with another codec"):
        generate(seven, model=other, out=tmp_path / "set", workers=0)

    assert not (tmp_path / "set").exists()


def test_the_processes_of_a_machine_share_the_pages_of_a_model_s_weights(model):
    maps = Path("/proc/self/maps")
    if not maps.exists() or torch.cuda.is_available():
        pytest.skip("without /proc nothing tells what is mapped; a GPU has its copy")

    sampler, _ = load_sampler(model, QUICK)

    assert next(sampler.network.parameters()).dtype == torch.float32
    assert str(model / "model.safetensors") in maps.read_text()


def test_less_than_no_worker_is_refused(tmp_path, seven, model):
    with pytest.raises(SettingsError, match="1 worker or more, got -1"):
        generate(seven, model=model, out=tmp_path / "set", workers=-1)


def test_an_empty_batch_is_refused():
    with pytest.raises(SettingsError, match="1 to 1024"):
        GenerateSettings(batch=0)


def test_shards_draw_all_of_a_plan_once_into_one_folder(
    tmp_path, seven, model, unbroken
):
    arguments = {"model": model, "out": tmp_path, "workers": 0, "settings": QUICK}

    counts = [
        len(generate(seven, shard=shard, **arguments).records())
        for shard in ("2/3", "3/3", "1/3")
    ]

    store = generate(seven, **arguments)
    assert counts == [2, 4, 7]
    assert digests(store) == digests(unbroken)
    lines = (tmp_path / "manifest.jsonl").read_text().splitlines()
    assert [json.loads(line)["sample_id"] for line in lines] == sorted(digests(store))


def test_batches_are_the_same_in_every_shard(tmp_path, seven, model):
    arguments = {"model": model, "workers": 0, "settings": replace(QUICK, batch=3)}
    whole = generate(seven, out=tmp_path / "whole", **arguments)

    for shard in ("1/2", "2/2"):
        parts = generate(seven, out=tmp_path / "parts", shard=shard, **arguments)

    assert digests(parts) == digests(whole)


def test_each_shard_has_failures_of_its_own(tmp_path, seven, model, unbroken):
    store = generate(seven, model=model, out=tmp_path, workers=0, settings=QUICK)
    blocked = [store.header.origin.sample_id(each) for each in seven.requests[:2]]
    for each in blocked:
        store.image(each).unlink()
        store.image(each).mkdir()

    for shard in ("1/2", "2/2"):
        with pytest.raises(IncompleteError, match="1 of 7"):
            generate(
                seven,
                **{"model": model, "out": tmp_path, "workers": 0, "shard": shard},
                settings=QUICK,
            )

    assert store.runs.failed() == set(blocked)
    assert store.status().failed == 2


@pytest.mark.parametrize(
    "text", ["0/16", "17/16", "3", "a/b", "-1/2", "1/99999", "1/0"]
)
def test_a_shard_that_is_none_is_refused(text):
    with pytest.raises(SettingsError, match="a shard must be K/N"):
        Shard.parse(text)


def test_a_folder_is_filled_by_one_run_of_a_shard_at_a_time(tmp_path, seven, model):
    store = generate(seven, model=model, out=tmp_path, workers=0, settings=QUICK)
    arguments = {"model": model, "out": tmp_path, "workers": 0, "settings": QUICK}

    with store.runs.going_on(Shard(1, 2)):
        for shard in ("1/2", None, "3/4"):
            with pytest.raises(IncompleteError, match="another process fills"):
                generate(seven, shard=shard, **arguments)
        generate(seven, shard="2/2", **arguments)


def test_a_disk_without_room_is_refused_before_anything_is_drawn(tmp_path, seven):
    room = Room(tmp_path, pixels=10**9)

    with pytest.raises(IncompleteError, match="GB of free disk for 7 volumes, found"):
        room.check(seven.requests)

    assert not room.is_left(seven.requests[:1])
    assert room.is_left([])


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_run_ends_when_the_disk_is_full_and_goes_on_when_it_is_not(
    tmp_path, seven, model, unbroken
):
    store = SynthStore.create(tmp_path, seven, unbroken.header.origin)
    arguments = {"model": model, "out": tmp_path, "workers": 0, "settings": QUICK}

    with files_up_to(6000), pytest.raises(IncompleteError, match="the disk is full"):
        generate(seven, **arguments)

    reasons = (tmp_path / "failed.jsonl").read_text()
    assert "the disk is full" in reasons
    assert "not tried" in reasons
    assert not list(tmp_path.rglob(".partial-*"))
    assert digests(generate(seven, **arguments)) == digests(unbroken)
    assert store.status().failed == 0


class Cramped:
    """A sampler with memory for one volume, or for none."""

    def __init__(self, sampler, most: int) -> None:
        self.sampler, self.most, self.drawn = sampler, most, []

    def sample(self, requests):
        if len(requests) > self.most:
            raise torch.OutOfMemoryError
        self.drawn.append(len(requests))
        return self.sampler.sample(requests)


def test_a_batch_for_which_memory_is_short_is_drawn_in_halves(
    tmp_path, seven, model, unbroken
):
    generate(seven, model=model, out=tmp_path, workers=0, settings=QUICK)
    worker = SynthWorker(model, tmp_path, QUICK)
    worker.sampler = Cramped(worker.sampler, most=2)

    drawn = worker.draw(seven.requests)

    assert worker.sampler.drawn == [1, 2, 2, 2]
    assert [each.volume.hu.shape for each in drawn] == [(8, 32, 32)] * 7
    worker.sampler.most = 0
    assert set(worker(seven.requests)) == {
        "memory is too small for one volume; draw fewer clips at once"
    }
