"""A whole job, with the real client answering in place of Flower's network."""

import errno
import json
import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Error, Message, MessageType

from client.app import app as client
from ctflow_fed.ct.store import LatentStore
from ctflow_fed.errors import IncompleteError, MismatchError
from ctflow_fed.federation import RAW, is_playing, release
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


def with_losses(*losses):
    """Evaluate to these losses, the first of them before the first round."""

    def answer(message, context):
        reply = client(message, context)
        if message.metadata.message_type == MessageType.EVALUATE:
            loss = losses[int(message.metadata.group_id)]
            reply.content["metrics"]["loss"] = loss
        return reply

    return answer


def replaying():
    """Train in the first round, then send the same answer again and again."""
    known = []

    def answer(message, context):
        reply = client(message, context)
        if message.metadata.message_type == MessageType.TRAIN:
            known.append(reply.content)
            return Message(known[0], reply_to=message)
        return reply

    return answer


NAN = corrupting(lambda values: values * np.float32("nan"))


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


def test_a_job_is_played_by_one_server_at_a_time(direct_grid, stores, settings):
    def submitting_again(message, context):
        with pytest.raises(IncompleteError, match="being played already"):
            play_job(direct_grid(stores), settings)
        assert is_playing(Path(settings.out))
        return client(message, context)

    play_job(direct_grid(stores, b=submitting_again), replace(settings, rounds=1))

    assert [record["round"] for record in records_of(settings)] == [1]
    assert not is_playing(Path(settings.out))


@pytest.mark.parametrize("what", ["write_package", "filed"])
def test_a_full_disk_ends_the_job_with_a_sentence_and_loses_nothing(
    direct_grid, stores, settings, tmp_path, monkeypatch, what
):
    unbroken = replace(settings, out=str(tmp_path / "unbroken"))
    play_job(direct_grid(stores), unbroken)

    def full(place, *_):
        if what == "write_package":
            (place / "model.safetensors").write_bytes(b"all that was room for")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(f"ctflow_fed.federation.job.{what}", full)
        with pytest.raises(IncompleteError, match=r"No space left .*; make room"):
            play_job(direct_grid(stores), settings)
    assert list(Path(settings.out).glob("rounds/*")) == []
    play_job(direct_grid(stores), settings)

    expected, got = records_of(unbroken), records_of(settings)
    assert [each["digest"] for each in got] == [each["digest"] for each in expected]


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


@pytest.mark.parametrize(
    ("strategy", "decay"),
    [("fedadam", 0.0), ("diloco", 0.9), ("fedavg", 0.9)],
)
def test_a_killed_job_of_any_strategy_ends_with_the_weights_of_an_unbroken_one(
    direct_grid, stores, settings, tmp_path, strategy, decay, stopping_in
):
    settings = replace(settings, rounds=3, steps=1, strategy=strategy, server_ema=decay)
    unbroken = replace(settings, out=str(tmp_path / "unbroken"))
    play_job(direct_grid(stores), unbroken)
    with pytest.raises(KeyboardInterrupt):
        play_job(direct_grid(stores, b=stopping_in(3)), settings)
    play_job(direct_grid(stores), settings)

    expected, got = records_of(unbroken), records_of(settings)
    for key in ("digest", "state", "moved", "loss_after"):
        assert [each[key] for each in got] == [each[key] for each in expected]
    digest = load_package(Path(settings.out) / "model").digest
    assert digest == expected[-1]["digest"]


def test_every_strategy_gives_other_weights(direct_grid, stores, settings, tmp_path):
    digests = set()
    chosen = ["fedavg", "fedavgm", "fedadam", "diloco", "median"]
    for strategy in chosen:
        out = str(tmp_path / strategy)
        job = replace(settings, out=out, steps=1, strategy=strategy)
        play_job(direct_grid(stores), job)
        digests.add(records_of(job)[-1]["digest"])

    assert len(digests) == len(chosen)


def test_a_cap_on_the_shares_changes_the_average(
    direct_grid, stores, settings, tmp_path
):
    settings = replace(settings, rounds=1, steps=1)
    capped = replace(settings, out=str(tmp_path / "capped"), max_share=0.5)
    median = replace(settings, out=str(tmp_path / "median"), strategy="median")
    for job in (settings, capped, median):
        play_job(direct_grid(stores), job)

    free, equal, middle = (
        records_of(job)[0]["digest"] for job in (settings, capped, median)
    )
    assert free != equal
    assert equal == middle  # of two sites that count the same


def test_a_round_below_the_quorum_is_not_averaged_and_can_be_repeated(
    direct_grid, stores, settings, tmp_path
):
    settings = replace(settings, min_sites=2)
    unbroken = replace(settings, out=str(tmp_path / "unbroken"))
    play_job(direct_grid(stores), unbroken)

    with pytest.raises(
        IncompleteError, match=r"round 1 got usable updates from 1 .*\(b: .*not finite"
    ):
        play_job(direct_grid(stores, b=NAN), settings)
    assert not (Path(settings.out) / "rounds.jsonl").exists()
    play_job(direct_grid(stores), settings)
    assert records_of(settings)[-1]["digest"] == records_of(unbroken)[-1]["digest"]


def test_a_job_that_gets_no_better_ends_with_the_model_of_its_best_round(
    direct_grid, stores, settings
):
    settings = replace(settings, rounds=9, steps=1, patience=2)
    grid = direct_grid(stores)
    grid.answers = dict.fromkeys(stores, with_losses(1.0, 0.8, 0.5, 0.6, 0.5, 0.1))
    play_job(grid, settings)

    records = records_of(settings)
    digest = load_package(Path(settings.out) / "model").digest
    assert [record["loss_after"] for record in records] == [0.8, 0.5, 0.6, 0.5]
    assert digest == records[1]["digest"] != records[-1]["digest"]
    idle = direct_grid(stores)
    play_job(idle, settings)
    assert idle.sent == []


def test_a_site_that_is_held_out_trains_nothing_and_its_loss_decides(
    direct_grid, stores, settings
):
    settings = replace(settings, rounds=9, steps=1, patience=1, held_out=("b",))
    grid = direct_grid(stores, a=with_losses(1.0, 0.9, 0.8, 0.7))
    grid.answers["b"] = with_losses(1.0, 0.5, 0.6)
    play_job(grid, settings)

    records = records_of(settings)
    asked = {m.metadata.message_type for m in grid.sent if m.metadata.dst_node_id == 2}
    assert MessageType.TRAIN not in asked
    assert [set(record["slices"]) for record in records] == [{"a"}, {"a"}]
    assert [record["loss_after"] for record in records] == [0.5, 0.6]
    assert records[0]["losses"] == {"a": 0.9, "b": 0.5}
    digest = load_package(Path(settings.out) / "model").digest
    assert digest == records[0]["digest"]


def test_a_replayed_answer_is_refused(direct_grid, stores, settings):
    play_job(direct_grid(stores, b=replaying()), settings)

    first, second = records_of(settings)
    assert set(first["slices"]) == {"a", "b"}
    assert set(second["slices"]) == {"a"}
    assert "another round, start" in second["refused"]["b"]
    assert (first["strikes"], second["strikes"]) == ([], ["b"])


def test_an_update_that_was_boosted_is_refused_by_what_was_usual_before(
    direct_grid, stores, settings
):
    boost = corrupting(lambda values: values + np.float32(2.0))

    def turning(message, context):
        hostile = message.metadata.group_id == "2"
        return (boost if hostile else client)(message, context)

    play_job(direct_grid(stores, b=turning), settings)

    first, second = records_of(settings)
    assert set(first["moved"]) == {"a", "b"}
    assert set(second["moved"]) == set(second["slices"]) == {"a"}
    assert "5 times as far as the median update" in second["refused"]["b"]
    assert second["strikes"] == ["b"]


def test_a_site_that_took_studies_in_with_another_codec_is_refused(
    direct_grid, stores, settings
):
    def swapped(message, context):
        if message.metadata.group_id == "1":
            header = stores["b"] / "store.json"
            text = header.read_text()
            header.write_text(text.replace('"codec_id": "', '"codec_id": "x'))
        return client(message, context)

    play_job(direct_grid(stores, b=swapped), replace(settings, rounds=1))

    (record,) = records_of(settings)
    assert set(record["slices"]) == {"a"}
    assert "another codec;" in record["refused"]["b"]


def test_three_wrong_answers_quarantine_a_site_until_it_is_released(
    direct_grid, stores, settings, stopping_in
):
    settings = replace(settings, rounds=6, steps=1)
    grid = direct_grid(stores, a=stopping_in(5), b=NAN)
    with pytest.raises(KeyboardInterrupt):
        play_job(grid, settings)
    records = records_of(settings)
    asked = {m.metadata.group_id for m in grid.sent if m.metadata.dst_node_id == 2}
    assert [record["strikes"] for record in records] == [["b"], ["b"], ["b"], []]
    assert "quarantined after 3 wrong answers" in records[3]["refused"]["b"]
    assert asked == {"", "0", "1", "2", "3"}

    with pytest.raises(KeyboardInterrupt):  # the job goes on, and without the site
        play_job(direct_grid({"a": stores["a"]}, a=stopping_in(6)), settings)
    assert "quarantined" in records_of(settings)[4]["refused"]["b"]
    release(Path(settings.out), "b")
    play_job(direct_grid(stores), settings)
    assert set(records_of(settings)[5]["slices"]) == {"a", "b"}


def test_a_job_whose_sites_are_all_quarantined_ends_with_a_sentence(
    direct_grid, stores, settings
):
    settings = replace(settings, rounds=5, steps=1)
    lossless = with_losses(1.0, -1.0, -1.0, -1.0)
    with pytest.raises(IncompleteError, match=r"round 4 has too few sites left \(a: "):
        play_job(direct_grid(stores, a=lossless, b=NAN), settings)
    assert [record["strikes"] for record in records_of(settings)] == [["a", "b"]] * 3

    grid = direct_grid(stores)
    with pytest.raises(IncompleteError, match=r"federation release a .*release b "):
        play_job(grid, settings)
    assert grid.sent == []


def test_a_site_that_is_silent_or_crashes_gives_no_wrong_answer(
    direct_grid, stores, settings
):
    def crashing(message, context):
        if message.metadata.message_type == MessageType.TRAIN:
            return Message(Error(code=8, reason="x"), reply_to=message)
        return client(message, context)

    play_job(direct_grid(stores, b=crashing), settings)

    assert [record["strikes"] for record in records_of(settings)] == [[], []]


def test_a_second_node_of_a_name_is_in_the_record(direct_grid, stores, settings):
    grid = direct_grid(stores)

    def joined(message, context):
        grid.nodes.setdefault(7, "b")
        return client(message, context)

    grid.answers["a"] = joined
    play_job(grid, replace(settings, rounds=1))

    (record,) = records_of(settings)
    assert set(record["slices"]) == {"a", "b"}
    assert "a second SuperNode claims its name" in record["refused"]["b"]
    assert record["strikes"] == []
