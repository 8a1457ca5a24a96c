"""Who is a site, when more than one node says so or one cannot say."""

import json
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict

from client.app import app as client
from ctflow_fed.errors import IncompleteError
from server.rounds import play_job
from server.sites import Roster


def refusing(message, context):
    refusal = ConfigRecord({"site": "b", "reason": "the store is gone"})
    return Message(RecordDict({"refusal": refusal}), reply_to=message)


def failing(message, context):
    return Message(Error(code=8, reason="/data/patient-0001"), reply_to=message)


@pytest.fixture
def grid(direct_grid, stores):
    return direct_grid(stores)


def test_the_first_node_of_a_name_is_the_site_while_it_is_there(grid):
    roster = Roster(grid, ("a", "b"))
    roster.wait(1.0)
    grid.nodes[7] = "b"

    assert roster.refresh() == {"a": 1, "b": 2}
    assert roster.refresh() == {"a": 1, "b": 2}
    assert [each.metadata.dst_node_id for each in grid.sent] == [1, 2, 7]
    assert roster.why_silent("b", 1.0).endswith("a second SuperNode claims its name")

    del grid.nodes[2]
    assert roster.refresh() == {"a": 1, "b": 7}


def test_a_second_node_that_is_refused_ends_no_job(grid):
    roster = Roster(grid, ("a", "b"))
    roster.wait(1.0)
    grid.answers["b"] = refusing
    grid.nodes[7] = "b"

    assert roster.refresh() == {"a": 1, "b": 2}
    roster.wait(1.0)


def test_a_node_that_could_not_answer_is_asked_again(grid):
    def recovering(message, context):
        grid.answers["b"] = client
        return failing(message, context)

    grid.answers["b"] = recovering
    roster = Roster(grid, ("a", "b"))
    roster.wait(1.0)

    assert roster.refresh() == {"a": 1, "b": 2}


def test_a_node_that_never_answers_is_told_of_by_its_reason(grid):
    grid.answers["b"] = failing

    with pytest.raises(IncompleteError, match=r"no answer from b .* out of memory"):
        Roster(grid, ("a", "b")).wait(0.3)


def test_the_record_has_the_reason_of_a_site_that_came_back_broken(grid, settings):
    def restarting(message, context):
        if message.metadata.group_id == "1":
            grid.nodes[9] = grid.nodes.pop(2)
            grid.answers["b"] = refusing
            return None
        return client(message, context)

    grid.answers["b"] = restarting
    play_job(grid, settings)
    records = (Path(settings.out) / "rounds.jsonl").read_text().splitlines()

    assert json.loads(records[1])["refused"] == {"b": "the store is gone"}
