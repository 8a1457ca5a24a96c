"""What travels between the server and the sites of a job, and what does not."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from safetensors.numpy import load_file

from client.app import app as client
from ctflow_fed.ct.store import LatentStore
from ctflow_fed.federation import arrays_digest, arrays_of, open_job
from ctflow_fed.model import PRESETS, fresh_network, load_package, save_package
from ctflow_fed.training import describe, load_adapter
from server.rounds import play_job

NANO = sum(v.nbytes for v in arrays_of(fresh_network(PRESETS["nano"], 0)).values())
"""The bytes of all weights."""


@pytest.fixture
def settings(settings):
    """Here no site is silent, and a slow machine is no site that is."""
    return replace(settings, round_seconds=60.0)


@pytest.fixture
def init(stores, tmp_path):
    """A model package whose last layers are not zero, as if it were trained."""
    network = fresh_network(PRESETS["nano"], seed=3)
    generator = torch.Generator().manual_seed(3)
    for value in network.parameters():
        value.data += 0.05 * torch.randn(value.shape, generator=generator)
    save_package(
        tmp_path / "init",
        network,
        describe(LatentStore.open(stores["a"]), steps=1, seed=0),
    )
    return str(tmp_path / "init")


def records_of(settings):
    lines = (Path(settings.out) / "rounds.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def state_of(stores, site):
    return stores[site].parent / ".ctflow-state" / site


def held_by(stores, site):
    (path,) = state_of(stores, site).glob("jobs/*/weights.safetensors")
    return arrays_digest(load_file(path))


def parts_of(grid, site):
    """Return which arrays went to a site with each order, in turn."""
    node = {name: number for number, name in grid.nodes.items()}[site]
    return [
        (each.metadata.message_type, *sorted(set(each.content) - {"order"}))
        for each in grid.sent
        if each.metadata.dst_node_id == node and "order" in each.content
    ]


def test_a_round_costs_a_site_one_download_and_one_upload(
    direct_grid, stores, settings
):
    grid = direct_grid(stores)
    play_job(grid, settings)

    first, second = records_of(settings)
    assert (first["sent"], first["received"]) == (4 * NANO, 2 * NANO)
    assert (second["sent"], second["received"]) == (2 * NANO, 2 * NANO)
    assert parts_of(grid, "a") == [
        (MessageType.EVALUATE, "arrays"),
        (MessageType.TRAIN,),
        (MessageType.EVALUATE, "arrays"),
        (MessageType.TRAIN,),
        (MessageType.EVALUATE, "arrays"),
    ]


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_the_sites_hold_what_the_server_keeps_to_the_last_bit(
    direct_grid, stores, settings, precision
):
    settings = replace(settings, precision=precision)
    grid = direct_grid(stores)
    play_job(grid, settings)

    digest = records_of(settings)[-1]["digest"]
    assert held_by(stores, "a") == held_by(stores, "b") == digest
    assert load_package(Path(settings.out) / "model").digest == digest
    sent = "arrays" if precision == "float32" else "change"
    assert parts_of(grid, "b")[-1] == (MessageType.EVALUATE, sent)


def test_precisions_cost_1_to_2_to_4_and_no_quality(
    direct_grid, stores, settings, tmp_path
):
    settings = replace(settings, rounds=3, steps=6, learning_rate=2e-4)
    jobs = {
        name: replace(settings, out=str(tmp_path / name), precision=name)
        for name in ("float32", "bfloat16", "int8")
    }
    for job in jobs.values():
        play_job(direct_grid(stores), job)

    for way in ("sent", "received"):
        exact, half, quarter = (
            sum(record[way] for record in records_of(job)[1:]) for job in jobs.values()
        )
        assert exact / half == pytest.approx(2, rel=0.03)
        assert exact / quarter == pytest.approx(4, rel=0.03)
    losses = {name: records_of(job)[-1]["loss_after"] for name, job in jobs.items()}
    assert len(set(losses.values())) == 3
    assert losses["float32"] < records_of(jobs["float32"])[0]["loss_before"]
    for loss in losses.values():
        assert loss == pytest.approx(losses["float32"], rel=0.01)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_site_that_lost_its_state_is_sent_everything_and_gave_no_wrong_answer(
    direct_grid, stores, settings, precision
):
    asked = set()

    def losing(message, context):
        kind, number = message.metadata.message_type, message.metadata.group_id
        if kind == MessageType.TRAIN and number not in asked:
            asked.add(number)  # when it is asked again it has what it was just sent
            shutil.rmtree(state_of(stores, "b"))
        return client(message, context)

    settings = replace(settings, precision=precision)
    grid = direct_grid(stores, b=losing)
    play_job(grid, settings)

    first, second = records_of(settings)
    assert set(first["slices"]) == set(second["slices"]) == {"a", "b"}
    assert second["refused"] == {}
    assert second["strikes"] == []
    assert parts_of(grid, "b")[1:3] == [
        (MessageType.TRAIN,),
        (MessageType.TRAIN, "arrays"),
    ]


def test_a_site_that_says_that_it_lacks_everything_always_is_left_out(
    direct_grid, stores, settings
):
    def lacking(message, context):
        if message.metadata.message_type == MessageType.QUERY:
            return client(message, context)
        answer = RecordDict({"lacking": ConfigRecord({"site": "b"})})
        return Message(answer, reply_to=message)

    grid = direct_grid(stores, b=lacking)
    play_job(grid, replace(settings, rounds=1))

    (record,) = records_of(settings)
    assert set(record["slices"]) == {"a"}
    assert "although all were sent" in record["refused"]["b"]
    assert record["strikes"] == []
    assert len(parts_of(grid, "b")) == 6  # each question once more


@pytest.mark.parametrize(
    "choice",
    [
        {"precision": "bfloat16"},
        {"precision": "int8", "strategy": "diloco"},
        {"precision": "int8", "optimizer": "kept"},
        {"adapter_rank": 4},
        {"adapter_rank": 4, "server_ema": 0.9, "strategy": "fedavgm"},
        {"adapter_rank": 4, "precision": "int8", "optimizer": "kept"},
    ],
    ids=str,
)
def test_a_killed_job_ends_with_the_weights_of_an_unbroken_one(
    direct_grid, stores, settings, tmp_path, choice, init, stopping_in
):
    settings = replace(settings, rounds=3, steps=2, init=init, **choice)
    unbroken = replace(settings, out=str(tmp_path / "unbroken"))
    play_job(direct_grid(stores), unbroken)
    for folder in stores:
        shutil.rmtree(state_of(stores, folder))
    with pytest.raises(KeyboardInterrupt):  # after `a` has trained round 3
        play_job(direct_grid(stores, b=stopping_in(3)), settings)
    play_job(direct_grid(stores), settings)

    expected, got = records_of(unbroken), records_of(settings)
    for key in ("digest", "state", "moved", "loss_after"):
        assert [each[key] for each in got] == [each[key] for each in expected]
    assert len({each["digest"] for each in got}) == 3
    digest = load_package(Path(settings.out) / "model").digest
    assert digest == expected[-1]["digest"]


def test_a_server_that_was_started_again_sends_nothing_twice(
    direct_grid, stores, settings, stopping_in
):
    settings = replace(settings, rounds=3, steps=1, precision="int8")
    with pytest.raises(KeyboardInterrupt):
        play_job(direct_grid(stores, b=stopping_in(2)), settings)
    grid = direct_grid(stores)
    play_job(grid, settings)

    assert parts_of(grid, "a") == [
        (MessageType.TRAIN,),
        (MessageType.EVALUATE, "change"),
        (MessageType.TRAIN,),
        (MessageType.EVALUATE, "change"),
    ]


def test_two_jobs_of_equal_settings_keep_apart_what_a_site_remembers(
    direct_grid, stores, settings, tmp_path
):
    settings = replace(settings, precision="int8", optimizer="kept")
    twin = replace(settings, out=str(tmp_path / "twin"))
    for job in (settings, twin):
        play_job(direct_grid(stores), job)

    assert [each["digest"] for each in records_of(settings)] == [
        each["digest"] for each in records_of(twin)
    ]
    assert len(list(state_of(stores, "a").glob("jobs/*"))) == 2


def test_an_optimizer_that_is_kept_changes_the_job_from_its_second_round_on(
    direct_grid, stores, settings, tmp_path
):
    kept = replace(settings, out=str(tmp_path / "kept"), optimizer="kept")
    for job in (settings, kept):
        play_job(direct_grid(stores), job)

    fresh, other = (
        [each["digest"] for each in records_of(job)] for job in (settings, kept)
    )
    assert fresh[0] == other[0]
    assert fresh[1] != other[1]


def test_the_base_of_an_adapter_is_sent_once_whatever_the_job(
    direct_grid, stores, settings, tmp_path, init
):
    settings = replace(settings, init=init, adapter_rank=4)
    grid = direct_grid(stores)
    play_job(grid, settings)
    assert parts_of(grid, "a") == [
        (MessageType.EVALUATE, "arrays"),
        (MessageType.EVALUATE, "arrays", "base"),
        (MessageType.TRAIN,),
        (MessageType.EVALUATE, "arrays"),
        (MessageType.TRAIN,),
        (MessageType.EVALUATE, "arrays"),
    ]
    assert records_of(settings)[1]["sent"] < 2 * NANO / 4

    other = replace(settings, out=str(tmp_path / "other"), seed=1)
    grid = direct_grid(stores)
    play_job(grid, other)
    assert all("base" not in parts for parts in parts_of(grid, "a"))


def test_the_model_is_the_base_with_the_adapter_which_lies_beside_it(
    direct_grid, stores, settings, init
):
    settings = replace(settings, init=init, adapter_rank=4)
    play_job(direct_grid(stores), settings)

    out, base = Path(settings.out), load_package(Path(init))
    model, merged = load_package(out / "model"), load_adapter(base, out / "adapter")
    assert model.digest == records_of(settings)[-1]["digest"] != base.digest
    assert model.provenance.parent == base.digest
    assert {each.name for each in (out / "model").iterdir()} == {
        "card.md",
        "config.json",
        "model.safetensors",
        "provenance.json",
    }
    weights = merged.network.state_dict()
    for name, value in model.network.state_dict().items():
        assert torch.allclose(value, weights[name], atol=1e-5)  # it is in float16


def test_a_job_with_a_seed_of_its_own_has_other_matrices_a(settings, init):
    jobs = [
        open_job(replace(settings, out=f"{settings.out}{seed}", init=init, seed=seed))
        for seed in (0, 1)
    ]
    adapters = [
        open_job(replace(each.settings, out=f"{each.settings.out}-r", adapter_rank=4))
        for each in jobs
    ]

    assert jobs[0].part.signature == jobs[1].part.signature
    assert adapters[0].part.signature != adapters[1].part.signature
    first = adapters[0].part
    assert all(not np.any(value) for value in first.first.values())


def test_the_state_of_a_site_may_not_lie_in_its_store(direct_grid, stores, settings):
    def inside(message, context):
        context.node_config["state"] = str(stores["b"] / "state")
        return client(message, context)

    play_job(direct_grid(stores, b=inside), replace(settings, rounds=1))

    assert "outside the site's store" in records_of(settings)[0]["refused"]["b"]
    assert not (stores["b"] / "state").exists()
