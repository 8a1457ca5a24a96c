"""Orders that are lost with the process that had them, and sites that come back."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import Error, Message, MessageType, RecordDict

from client.app import app as client
from ctflow_fed.errors import IncompleteError
from server.inquiry import Inquiry
from server.rounds import play_job
from server.sites import Roster

GONE, CRASHED = 5, 8


@pytest.fixture(autouse=True)
def _often(monkeypatch):
    """Look for those who are back more often than a real server does."""
    monkeypatch.setattr("server.inquiry.RECHECK_SECONDS", 0.05)


@pytest.fixture
def settings(settings):
    """One round, in which a slow machine is no site that is silent."""
    return replace(settings, rounds=1, round_seconds=60.0)


@pytest.fixture
def unbroken(direct_grid, stores, settings, tmp_path):
    """The record of the round where nothing goes wrong."""
    undisturbed = replace(settings, out=str(tmp_path / "unbroken"))
    play_job(direct_grid(stores), undisturbed)
    return record_of(undisturbed)


def record_of(settings):
    (line,) = (Path(settings.out) / "rounds.jsonl").read_text().splitlines()
    return json.loads(line)


def trained_by(grid, node):
    return [
        each
        for each in grid.sent
        if each.metadata.dst_node_id == node
        and each.metadata.message_type == MessageType.TRAIN
    ]


def failing(code, times):
    """Fail in training so many times, and answer as the client does after that."""
    left = [times]

    def answer(message, context):
        if message.metadata.message_type == MessageType.TRAIN and left[0]:
            left[0] -= 1
            return Message(Error(code=code, reason="x"), reply_to=message)
        return client(message, context)

    return answer


def test_a_site_whose_training_was_killed_is_asked_again_in_the_same_round(
    direct_grid, stores, settings, unbroken
):
    grid = direct_grid(stores, b=failing(CRASHED, times=2))
    play_job(grid, settings)

    record = record_of(settings)
    assert len(trained_by(grid, 1)) == 1
    assert len(trained_by(grid, 2)) == 3
    assert record["refused"] == {}
    for key in ("slices", "digest", "loss_after"):
        assert record[key] == unbroken[key]


def test_a_site_that_crashes_every_time_is_left_out_in_the_end(
    direct_grid, stores, settings
):
    grid = direct_grid(stores, b=failing(CRASHED, times=99))
    play_job(grid, settings)

    assert len(trained_by(grid, 2)) == 3
    assert set(record_of(settings)["slices"]) == {"a"}
    assert "out of memory" in record_of(settings)["refused"]["b"]


def test_a_round_that_needs_a_site_waits_until_it_is_back(
    direct_grid, stores, settings, unbroken
):
    settings = replace(settings, min_sites=2, wait_seconds=60.0)
    play_job(direct_grid(stores, b=failing(GONE, times=1)), settings)

    record = record_of(settings)
    assert record["refused"] == {}
    for key in ("slices", "digest", "loss_after"):
        assert record[key] == unbroken[key]


def test_a_round_that_needs_no_more_ends_with_who_is_left(
    direct_grid, stores, settings
):
    settings = replace(settings, wait_seconds=60.0)
    play_job(direct_grid(stores, b=failing(GONE, times=99)), settings)

    assert set(record_of(settings)["slices"]) == {"a"}
    assert record_of(settings)["refused"]["b"].startswith("its SuperNode went away")
    assert record_of(settings)["seconds"] < 30


def test_a_node_that_does_not_come_back_is_not_waited_for_without_end(
    direct_grid, stores, settings
):
    grid = direct_grid(stores)

    def leaving(message, context):
        if message.metadata.message_type == MessageType.TRAIN:
            grid.nodes.pop(2, None)
            return None
        return client(message, context)

    grid.answers["b"] = leaving
    with pytest.raises(IncompleteError, match=r"1 sites of at least 2 .*not connected"):
        play_job(grid, replace(settings, min_sites=2))


def test_a_job_goes_on_without_a_site_that_it_does_not_need(
    direct_grid, stores, settings, stopping_in
):
    settings = replace(settings, rounds=2)
    with pytest.raises(KeyboardInterrupt):
        play_job(direct_grid(stores, b=stopping_in(2)), settings)
    del stores["b"]
    play_job(direct_grid(stores), settings)

    last = json.loads((Path(settings.out) / "rounds.jsonl").read_text().split("\n")[1])
    assert set(last["slices"]) == {"a"}
    assert "not connected" in last["refused"]["b"]


@pytest.fixture
def roster(direct_grid, stores):
    """The two sites, which have said who they are."""
    roster = Roster(direct_grid(stores), ("a", "b"))
    roster.wait(30.0)
    return roster


def ask(grid, roster, write):
    inquiry = Inquiry(grid, roster, write, on_answer=lambda _: None)
    return inquiry.answers(roster.nodes, seconds=5.0, grace=0.0, least=0)


def question(site, node, reply):
    """Ask a site what it has, once more after a crash."""
    if reply is not None and not reply.has_error():
        return None
    return Message(RecordDict(), node, MessageType.QUERY)


def once(first, then):
    """Answer one question in a way, and those after it in another."""
    left = [first]

    def answer(message, context):
        return (left.pop() if left else then)(message, context)

    return answer


def crashing(message, context):
    return Message(Error(code=CRASHED, reason="x"), reply_to=message)


def test_a_fault_in_asking_again_is_not_taken_for_a_site_that_is_silent(
    direct_grid, stores, roster
):
    def write(site, node, reply):
        lost = {} if reply is not None and reply.has_error() else {site: node}
        return question(site, lost[site], reply)

    with pytest.raises(KeyError):
        ask(direct_grid(stores, b=once(crashing, client)), roster, write)


def test_an_answer_that_comes_twice_or_to_no_question_counts_once(
    direct_grid, stores, roster
):
    grid = direct_grid(stores, b=once(crashing, client))
    pull = grid.pull_messages
    stray = Message(RecordDict(), 1, MessageType.QUERY)
    stray.metadata.__dict__["_reply_to_message_id"] = "message-99"
    grid.pull_messages = lambda ids: [stray, *(2 * pull(ids))]

    assert set(ask(grid, roster, question)) == {"a", "b"}
    assert len(grid.sent) == 3  # one to `a`, two to `b`
