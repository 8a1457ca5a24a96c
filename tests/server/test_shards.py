"""Weights that are too large for a message: the same job, by way of files."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import ArrayRecord, ConfigRecord, MessageType

from client.app import app as client
from ctflow_fed.errors import IncompleteError
from ctflow_fed.federation import shards
from ctflow_fed.locks import locked
from server.rounds import play_job

CHOICES = [
    {"precision": "bfloat16", "strategy": "diloco"},
    {"precision": "int8", "strategy": "median", "optimizer": "kept"},
    {"server_ema": 0.9, "strategy": "trimmed-mean"},
]


@pytest.fixture
def settings(settings):
    return replace(settings, round_seconds=60.0, steps=1)


@pytest.fixture
def small_shards(monkeypatch):
    """Here a shard has 100 kB, so that the smallest network is too large for one.

    And its arrays go in many runs.
    """
    monkeypatch.setattr(shards, "SHARD_BYTES", 100_000)
    monkeypatch.setattr("ctflow_fed.federation.arrays.LONGEST_RUN", 1024)


@pytest.fixture
def by_shards(direct_grid, stores, small_shards):
    """Play a job by way of the shards in its folder; return its grid."""

    def play(settings, **answers):
        grid = direct_grid(stores, **answers)
        grid.shards = Path(settings.out) / "shards"
        play_job(grid, settings)
        return grid

    return play


def records_of(settings):
    lines = (Path(settings.out) / "rounds.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_a_job_by_shards_ends_with_the_weights_of_one_by_messages(
    direct_grid, stores, settings, tmp_path, choice, request
):
    settings = replace(settings, **choice)
    play_job(direct_grid(stores), settings)
    other = replace(settings, out=str(tmp_path / "other"))
    grid = request.getfixturevalue("by_shards")(other)

    expected, got = records_of(settings), records_of(other)
    for key in ("digest", "state", "sent", "received", "loss_after"):
        assert [each[key] for each in got] == [each[key] for each in expected]
    for one, other in zip(got, expected, strict=True):
        assert one["moved"] == pytest.approx(other["moved"], rel=1e-12)
    assert {each["shards"] for each in expected} == {0}
    assert all(each["shards"] > 10 for each in got)
    sent = [record for each in grid.sent for record in each.content.values()]
    assert not any(isinstance(record, ArrayRecord) for record in sent)


def spoiling(spoil):
    """Answer as the client does, but let ``spoil`` have the shards and their names."""

    def answer(message, context):
        reply = client(message, context)
        if message.metadata.message_type == MessageType.TRAIN:
            state = Path(context.node_config["store"]).parent / ".ctflow-state" / "b"
            spoil(state / "outbox", reply.content["arrays"])
        return reply

    return answer


def change_a_byte(outbox: Path, names: ConfigRecord) -> None:
    path = outbox / names["digests"].split(",")[2]
    path.write_bytes(b"?" + path.read_bytes()[1:])


def cut_a_shard(outbox: Path, names: ConfigRecord) -> None:
    path = outbox / names["digests"].split(",")[2]
    path.write_bytes(path.read_bytes()[:-1])


def leave_out_the_last(outbox: Path, names: ConfigRecord) -> None:
    for key in ("digests", "sizes"):
        names[key] = names[key].rpartition(",")[0]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (change_a_byte, "shard 3 of "),
        (cut_a_shard, "shard 3 of "),
        (leave_out_the_last, "got less"),
    ],
)
def test_shards_that_are_not_those_of_the_round_are_refused_and_named(
    by_shards, settings, spoil, reason
):
    settings = replace(settings, rounds=1)
    by_shards(settings, b=spoiling(spoil))

    (record,) = records_of(settings)
    assert set(record["slices"]) == {"a"}
    assert reason in record["refused"]["b"]
    assert record["strikes"] == ["b"]


def test_a_second_job_by_shards_at_a_server_ends_at_once_and_says_so(
    by_shards, settings
):
    with (
        locked(Path(settings.out) / "shards" / "lock", ""),
        pytest.raises(IncompleteError, match="room for one at a time"),
    ):
        by_shards(settings)
