"""Secure jobs: the server reads means, whoever drops out; what is forged is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Message,
    MessageType,
    RecordDict,
)

from client.app import app as client
from ctflow_fed.deployment.secured import certify, secured
from ctflow_fed.deployment.site.secure import SECURE
from ctflow_fed.errors import IncompleteError
from ctflow_fed.federation import RAW, SPENT, arrays_of
from ctflow_fed.model import load_package
from server.rounds import play_job
from server.secure import BOUND

SITES = ("a", "b", "c", "d")


@pytest.fixture
def stores(haar_store, tmp_path):
    """Four sites with the same study each."""
    folders = {name: tmp_path / "stores" / name for name in SITES}
    for folder in folders.values():
        shutil.copytree(haar_store, folder)
        index = folder / "index.jsonl"
        index.write_text(index.read_text().splitlines(keepends=True)[0])
    return folders


@pytest.fixture
def settings(settings):
    """One secure round of a step at four sites."""
    short = {"rounds": 1, "steps": 1, "batch_clips": 1, "round_seconds": 3.0}
    certify(Path(settings.out) / "sites", SITES)
    return replace(settings, sites=SITES, secure_aggregation=True, **short)


@pytest.fixture
def play(direct_grid, stores):
    """A function: play a job with sites that mask, some of them in another way."""

    def play(settings, program=client, **answers):
        programs = {"b": program}
        at = {s: at_desk(settings, s, programs.get(s, client)) for s in SITES}
        for site, change in answers.items():
            at[site] = change(at[site])
        grid = direct_grid(stores, **at)
        play_job(grid, settings)
        return grid

    return play


def at_desk(settings, site, program):
    """Answer as the program of a site does whose desk masks what leaves."""

    def answer(message, context):
        state = str(Path(settings.out) / "sites" / site)
        context.node_config = {**context.node_config, "state": state}
        return secured(program)(message, context)

    return answer


def silent_in(step):
    """Take no part from a step, or from training, on."""

    def changed(answer):
        gone = []

        def answering(message, context):
            if gone or step in {step_of(message), message.metadata.message_type}:
                gone.append(step)
                return None
            return answer(message, context)

        return answering

    return changed


def silent_once(step):
    """Miss a step once."""

    def changed(answer):
        missed = []

        def answering(message, context):
            if not missed and step_of(message) == step:
                missed.append(step)
                return None
            return answer(message, context)

        return answering

    return changed


def spent(answer):
    """Refuse to train as a site does that has no privacy budget left."""

    def answering(message, context):
        if message.metadata.message_type != MessageType.TRAIN:
            return answer(message, context)
        refusal = ConfigRecord({"site": "d", "reason": SPENT})
        return Message(RecordDict({"refusal": refusal}), reply_to=message)

    return answering


def step_of(message):
    if message.metadata.message_type != SECURE:
        return ""
    return message.content["secure"]["step"]


def overheard(replies):
    def changed(answer):
        def answering(message, context):
            reply = answer(message, context)
            replies.append((step_of(message) or message.metadata.message_type, reply))
            return reply

        return answering

    return changed


def records_of(settings):
    lines = (Path(settings.out) / "rounds.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def weights_of(settings):
    return arrays_of(load_package(Path(settings.out) / "model").network)


def openly(settings, play, tmp_path, **answers):
    """Play the same job without secure aggregation."""
    plain = replace(settings, secure_aggregation=False, out=str(tmp_path / "plain"))
    play(plain, **answers)
    return weights_of(plain)


def check_equal(got, expected):
    """They are the same but for the grid: half a step a site, and float32."""
    for name, value in expected.items():
        step = BOUND / 2**31 + np.spacing(np.abs(value).max())
        assert np.abs(got[name] - value).max() <= 4 * step


def test_a_secure_round_ends_with_the_weights_of_an_open_one(settings, play, tmp_path):
    play(settings)

    (record,) = records_of(settings)
    assert set(record["slices"]) == set(SITES)
    assert record["moved"] == record["refused"] == {}
    check_equal(weights_of(settings), openly(settings, play, tmp_path))


def test_the_server_is_sent_no_update_that_it_could_read(settings, play, stores):
    replies = []
    play(settings, a=overheard(replies))

    (trained,) = [r for kind, r in replies if kind == "train" and "arrays" in r.content]
    for array in trained.content["arrays"].values():
        assert array.dtype == "uint32"
        if len(array.data) > 2**16:
            counts = np.bincount(np.frombuffer(array.data, np.uint8), minlength=256)
            spread = float(((counts - counts.mean()) ** 2 / counts.mean()).sum())
            assert spread < 420  # 255 degrees of freedom
    assert [kind for kind, _ in replies if kind not in {"query", "evaluate"}] == [
        "advertise",
        "share",
        "train",
        "confirm",
        "reveal",
    ]


@pytest.mark.parametrize("step", ["share", MessageType.TRAIN, "confirm", "reveal"])
def test_a_site_that_drops_out_spoils_nothing(
    settings, play, tmp_path, monkeypatch, step
):
    monkeypatch.setattr("server.secure.STEP_SECONDS", 1.0)
    play(settings, d=silent_in(step))

    (record,) = records_of(settings)
    assert "no answer" in record["refused"]["d"]
    assert record["strikes"] == []
    is_in = step in {"confirm", "reveal"}  # what it sent is in the sum by then
    assert set(record["slices"]) == set(SITES if is_in else SITES[:3])
    others = {} if is_in else {"d": silent_in(MessageType.TRAIN)}
    check_equal(weights_of(settings), openly(settings, play, tmp_path, **others))


def test_fewer_sites_than_hide_one_another_end_the_job_for_now(
    settings, play, monkeypatch
):
    monkeypatch.setattr("server.secure.STEP_SECONDS", 1.0)
    gone = {"c": silent_in("share"), "d": silent_in("share")}

    with pytest.raises(IncompleteError, match=r"round 1 could not be summed.*at least"):
        play(settings, **gone)
    play(settings)  # the same command, another attempt
    assert set(records_of(settings)[0]["slices"]) == set(SITES)


def test_a_round_that_fell_below_the_threshold_is_tried_once_more(
    settings, play, tmp_path, monkeypatch
):
    monkeypatch.setattr("server.secure.STEP_SECONDS", 1.0)
    play(settings, c=silent_once("share"), d=silent_once("share"))

    (record,) = records_of(settings)
    assert record["attempts"] == 2
    assert set(record["slices"]) == set(SITES)
    assert set(record["refused"]) == {"c", "d"}
    for why in record["refused"].values():
        assert why.startswith("in the first attempt: no answer")
    check_equal(weights_of(settings), openly(settings, play, tmp_path))


def test_a_site_whose_budget_is_spent_is_in_no_sum_and_asked_no_more(settings, play):
    play(replace(settings, rounds=2), d=spent)

    first, second = records_of(settings)
    assert first["spent"] == ["d"]
    for record in (first, second):
        assert record["refused"] == {"d": SPENT}
        assert record["strikes"] == []
        assert set(record["slices"]) == {"a", "b", "c"}
        assert record["attempts"] == 1


def test_a_job_whose_budgets_are_spent_ends_with_the_weights_that_it_had(
    settings, play
):
    play(replace(settings, rounds=3), c=spent, d=spent)

    (record,) = records_of(settings)
    assert record["slices"] == {}
    assert record["spent"] == ["c", "d"]
    assert record["loss_after"] == record["loss_before"]


def test_a_site_whose_certificate_the_server_made_up_is_refused_by_all(
    settings, play, tmp_path
):
    certify(tmp_path / "forged", SITES)
    forged = tmp_path / "forged" / "d" / "site.pem"
    shutil.copyfile(forged, Path(settings.out) / "sites" / "d" / "site.pem")

    play(settings)
    (record,) = records_of(settings)
    assert set(record["slices"]) == {"a", "b", "c"}
    assert record["strikes"] == ["d"]
    assert "certificate of the consortium's authority for d" in record["refused"]["d"]


def test_a_site_that_is_told_another_order_than_the_others_sends_nothing(
    settings, play
):
    def misled(answer):
        def answering(message, context):
            if message.metadata.message_type == MessageType.TRAIN:
                message.content["order"]["seed"] = 7
            return answer(message, context)

        return answering

    play(settings, b=misled)
    (record,) = records_of(settings)
    assert set(record["slices"]) == {"a", "c", "d"}
    assert "the terms of a secure round with its order" in record["refused"]["b"]


def test_an_update_that_is_not_finite_is_kept_back_at_the_site(settings, play):
    def broken(message, context):
        reply = client(message, context)
        if "arrays" in reply.content:
            spoilt = {
                name: Array("float32", each.shape, RAW, b"\xff" * len(each.data))
                for name, each in reply.content["arrays"].items()
            }
            reply.content["arrays"] = ArrayRecord(spoilt)
        return reply

    play(settings, program=broken)
    (record,) = records_of(settings)
    assert set(record["slices"]) == {"a", "c", "d"}
    assert "not finite" in record["refused"]["b"]
