"""A whole job, with the real client answering in place of Flower's network."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Error, Message, MessageType

from client.app import app as client
from ctflow_fed.ct.store import LatentStore
from ctflow_fed.errors import IncompleteError, MismatchError
from ctflow_fed.federation import RAW
from ctflow_fed.model import PRESETS, fresh_network, load_package, save_package
from ctflow_fed.training import describe
from server.rounds import play_job


def records_of(settings):
    lines = (Path(settings.out) / "rounds.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def silent(message, context):
    return None


def only_preflight(message, context):
    if message.metadata.message_type == MessageType.QUERY:
        return client(message, context)
    return None


def corrupting(change):
    """Answer as the client does, with ``change`` made to the first array."""

    def answer(message, context):
        reply = client(message, context)
        if message.metadata.message_type == MessageType.TRAIN:
            arrays = reply.content["arrays"]
            name = sorted(arrays)[0]
            values = np.frombuffer(arrays[name].data, "<f4").copy()
            data = change(values).tobytes()
            shape = arrays[name].shape
            arrays[name] = Array("float32", shape, RAW, data)
            reply.content["arrays"] = ArrayRecord(dict(arrays))
        return reply

    return answer


def claiming(number):
    """Answer a question to train as the client does, but for so many slices."""

    def answer(message, context):
        reply = client(message, context)
        if message.metadata.message_type == MessageType.TRAIN:
            reply.content["metrics"]["num-examples"] = number
        return reply

    return answer


def test_a_job_ends_with_a_model_and_a_record_of_every_round(
    direct_grid, stores, settings
):
    play_job(direct_grid(stores), settings)

    records = records_of(settings)
    package = load_package(Path(settings.out) / "model")
    assert [record["round"] for record in records] == [1, 2]
    assert records[0]["slices"] == {"a": 52, "b": 92}
    assert records[1]["loss_before"] == records[0]["loss_after"]
    assert records[1]["loss_after"] < records[0]["loss_before"]
    assert package.digest == records[-1]["digest"]
    assert (package.provenance.rounds, package.provenance.sites) == (2, 2)
    assert package.provenance.steps == 4


def test_a_round_is_logged_with_the_keys_of_its_record(
    direct_grid, stores, settings, caplog
):
    with caplog.at_level(logging.INFO, logger="server"):
        play_job(direct_grid(stores), settings)

    lines = [entry.message for entry in caplog.records if "round=" in entry.message]
    assert len(lines) == 2
    assert all(f"{key}=" in lines[0] for key in records_of(settings)[0])


def test_the_order_of_the_sites_changes_nothing(
    direct_grid, stores, settings, tmp_path
):
    settings = replace(settings, rounds=1)
    play_job(direct_grid(stores), settings)
    other = replace(settings, out=str(tmp_path / "other"), sites=("b", "a"))
    play_job(direct_grid(dict(reversed(stores.items()))), other)

    assert records_of(other)[-1]["digest"] == records_of(settings)[-1]["digest"]


def test_a_job_that_was_stopped_ends_with_the_weights_of_an_unbroken_one(
    direct_grid, stores, settings, tmp_path
):
    class StoppedError(Exception):
        pass

    def stopping(message, context):
        if message.metadata.group_id == "2":
            raise StoppedError
        return client(message, context)

    unbroken = replace(settings, out=str(tmp_path / "unbroken"))
    play_job(direct_grid(stores), unbroken)
    with pytest.raises(StoppedError):
        play_job(direct_grid(stores, b=stopping), settings)
    play_job(direct_grid(stores), settings)

    assert len(records_of(settings)) == 2
    assert records_of(settings)[-1]["digest"] == records_of(unbroken)[-1]["digest"]


def test_a_finished_job_asks_nobody(direct_grid, stores, settings):
    settings = replace(settings, rounds=1, steps=1)
    play_job(direct_grid(stores), settings)
    grid = direct_grid(stores)
    play_job(grid, settings)

    assert grid.sent == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda values: values * np.float32("nan"), "not finite"),
        (lambda values: values + np.float32(1e6), "moved"),
        (lambda values: values[:-1], "length"),
    ],
)
def test_a_bad_update_is_refused_and_the_round_goes_on(
    direct_grid, stores, settings, change, reason
):
    play_job(direct_grid(stores, b=corrupting(change)), replace(settings, rounds=1))

    (record,) = records_of(settings)
    assert set(record["slices"]) == {"a"}
    assert reason in record["refused"]["b"]


def test_a_site_cannot_change_its_weight(direct_grid, stores, settings):
    play_job(direct_grid(stores, b=claiming(10**9)), replace(settings, rounds=1))

    (record,) = records_of(settings)
    assert record["slices"] == {"a": 52}
    assert "the 92 slices that the site stated" in record["refused"]["b"]
    provenance = load_package(Path(settings.out) / "model").provenance
    assert provenance.sites == 1


def test_a_site_that_does_not_answer_is_named(direct_grid, stores, settings):
    play_job(direct_grid(stores, b=only_preflight), replace(settings, rounds=1))

    (record,) = records_of(settings)
    assert record["refused"] == {"b": "no answer within 1 s"}


def test_a_site_that_is_silent_in_training_is_not_evaluated(
    direct_grid, stores, settings
):
    grid = direct_grid(stores, b=only_preflight)
    play_job(grid, replace(settings, rounds=1))

    asked = [each.metadata for each in grid.sent if each.metadata.dst_node_id == 2]
    assert [(each.message_type, each.group_id) for each in asked] == [
        (MessageType.QUERY, ""),
        (MessageType.EVALUATE, "0"),
        (MessageType.TRAIN, "1"),
    ]


def test_a_crash_at_a_site_is_told_without_its_text(direct_grid, stores, settings):
    def crashing(message, context):
        if message.metadata.message_type == MessageType.TRAIN:
            error = Error(code=8, reason="/data/patient-0001")
            return Message(error, reply_to=message)
        return client(message, context)

    play_job(direct_grid(stores, a=crashing), replace(settings, rounds=1))

    assert "out of memory" in records_of(settings)[0]["refused"]["a"]
    assert "patient" not in (Path(settings.out) / "rounds.jsonl").read_text()


def test_a_round_without_any_update_ends_the_job(direct_grid, stores, settings):
    spoil = corrupting(lambda values: values * np.float32("inf"))
    grid = direct_grid(stores, a=spoil, b=spoil)

    with pytest.raises(IncompleteError, match=r"round 1 .*a: .*b: "):
        play_job(grid, settings)


def test_a_job_does_not_begin_without_all_its_sites(direct_grid, stores, settings):
    with pytest.raises(IncompleteError, match="no answer from b within 1 s"):
        play_job(direct_grid(stores, b=silent), settings)


def test_a_site_with_another_codec_is_refused(direct_grid, stores, settings):
    header = stores["b"] / "store.json"
    header.write_text(header.read_text().replace('"codec_id": "', '"codec_id": "x'))

    with pytest.raises(MismatchError, match=r"b: .*codec_id"):
        play_job(direct_grid(stores), settings)


def test_a_job_does_not_go_on_with_stores_of_another_codec(
    direct_grid, stores, settings
):
    def stopping(message, context):
        if message.metadata.group_id == "2":
            raise KeyboardInterrupt
        return client(message, context)

    with pytest.raises(KeyboardInterrupt):
        play_job(direct_grid(stores, b=stopping), settings)
    for store in stores.values():
        header = store / "store.json"
        header.write_text(header.read_text().replace('"codec_id": "', '"codec_id": "x'))

    with pytest.raises(MismatchError, match="the model to go on from"):
        play_job(direct_grid(stores), settings)


def test_a_site_without_its_store_is_refused(direct_grid, stores, settings):
    (stores["a"] / "store.json").unlink()

    with pytest.raises(MismatchError, match=r"a: .*ctflow intake"):
        play_job(direct_grid(stores), settings)


def test_other_settings_on_a_job_are_refused(direct_grid, stores, settings):
    with pytest.raises(IncompleteError):
        play_job(direct_grid(stores, a=silent), settings)

    with pytest.raises(MismatchError, match="steps"):
        play_job(direct_grid(stores), replace(settings, steps=3))


def test_a_job_can_begin_with_a_model(direct_grid, stores, settings, tmp_path):
    settings = replace(settings, rounds=1)
    play_job(direct_grid(stores), settings)
    first = load_package(Path(settings.out) / "model")
    tuned = replace(settings, out=str(tmp_path / "tuned"), init=f"{settings.out}/model")
    play_job(direct_grid(stores), tuned)

    assert load_package(Path(tuned.out) / "model").provenance.parent == first.digest
    assert records_of(tuned)[0]["loss_before"] == records_of(settings)[-1]["loss_after"]


@pytest.mark.parametrize("method", ["known", "ctflow"])
def test_the_model_names_the_method_that_the_job_trained_by(
    direct_grid, stores, settings, tmp_path, method
):
    network = fresh_network(replace(PRESETS["nano"], released=True), seed=0)
    known = describe(LatentStore.open(stores["a"]), steps=0, seed=0, method="ctflow")
    save_package(tmp_path / "released", network, known)
    init = str(tmp_path / "released")

    settings = replace(settings, rounds=1, init=init, method=method)
    play_job(direct_grid(stores), settings)

    package = load_package(Path(settings.out) / "model")
    assert package.provenance.method == method
    assert package.network.config.released
    assert json.loads((Path(settings.out) / "run.json").read_text())["method"] == method


def test_a_restarted_node_takes_its_site_up_again(direct_grid, stores, settings):
    grid = direct_grid(stores)

    def restarting(message, context):
        if message.metadata.message_type == MessageType.TRAIN and 2 in grid.nodes:
            grid.nodes[9] = grid.nodes.pop(2)
            return None
        return client(message, context)

    grid.answers["b"] = restarting
    play_job(grid, settings)

    first, second = records_of(settings)
    assert set(first["slices"]) == {"a"}
    assert set(second["slices"]) == {"a", "b"}
