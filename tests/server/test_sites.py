"""Who is a site, when more than one node says so or one cannot say."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from flwr.app import ConfigRecord, Error, Message, RecordDict

from client.app import app as client
from ctflow_fed.deployment.certificates import new_key, node_public_text
from ctflow_fed.errors import IncompleteError, MismatchError, PackageError
from ctflow_fed.model import load_package
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


@pytest.fixture
def keys(grid, tmp_path):
    """The folder of the keys of `a` and `b`, which their nodes have."""
    folder = tmp_path / "nodes"
    folder.mkdir()
    for node, site in grid.nodes.items():
        key = new_key()
        (folder / f"{site}.pub").write_bytes(node_public_text(key))
        grid.keys[node] = public_pem(key)
    return folder


def public_pem(key):
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def test_a_job_of_registered_sites_ends_as_one_of_sites_that_tell_their_names(
    grid, keys, settings, tmp_path
):
    play_job(grid, replace(settings, nodes=str(keys)))
    play_job(grid, replace(settings, out=str(tmp_path / "other")))

    one, other = (
        load_package(Path(out) / "model").digest
        for out in (settings.out, tmp_path / "other")
    )
    assert one == other


def test_a_node_whose_key_is_not_registered_is_not_even_asked(grid, keys):
    grid.nodes[7] = "b"
    grid.keys[7] = public_pem(new_key())
    grid.nodes[8] = "a"
    roster = Roster(grid, ("a", "b"), keys)
    roster.wait(1.0)

    assert roster.refresh() == {"a": 1, "b": 2}
    assert {each.metadata.dst_node_id for each in grid.sent} == {1, 2}
    assert roster.contested() == {}


def test_a_site_that_says_the_name_of_another_is_refused_by_its_own(grid, keys):
    grid.nodes[1] = "b"

    with pytest.raises(MismatchError, match=r"^a: its node config has another site's"):
        Roster(grid, ("a", "b"), keys).wait(1.0)


def test_a_refusal_counts_for_the_site_of_the_key_not_for_the_name_in_it(grid, keys):
    grid.nodes[1] = "b"
    grid.answers["b"] = refusing
    del grid.nodes[2]

    with pytest.raises(MismatchError, match=r"^a: the store is gone"):
        Roster(grid, ("a", "b"), keys).wait(1.0)


def test_a_registered_node_that_could_not_answer_is_asked_again(grid, keys):
    def recovering(message, context):
        grid.answers["b"] = client
        return failing(message, context)

    grid.answers["b"] = recovering
    roster = Roster(grid, ("a", "b"), keys)
    roster.wait(1.0)

    assert roster.refresh() == {"a": 1, "b": 2}


def test_a_site_revoked_during_a_job_is_left_out_from_then_on(grid, keys):
    roster = Roster(grid, ("a", "b"), keys)
    roster.wait(1.0)
    (keys / "b.revoked").touch()

    assert roster.refresh() == {"a": 1}


def test_a_site_with_a_new_key_is_the_node_that_has_it(grid, keys):
    roster = Roster(grid, ("a", "b"), keys)
    roster.wait(1.0)
    key = new_key()
    (keys / "b.pub").write_bytes(node_public_text(key))
    grid.nodes[7], grid.keys[7] = "b", public_pem(key)
    roster.wait(1.0)

    assert roster.refresh() == {"a": 1, "b": 7}


@pytest.mark.parametrize("content", [b"", b"ssh-rsa AAAA", b"\xff" * 99])
def test_a_registry_that_cannot_be_read_is_named_in_a_sentence(grid, keys, content):
    (keys / "b.pub").write_bytes(content)

    with pytest.raises(PackageError, match=r"^b\.pub is not the public key of a site"):
        Roster(grid, ("a", "b"), keys).refresh()
    with pytest.raises(PackageError, match="got none; make it with"):
        Roster(grid, ("a", "b"), keys / "none").refresh()


def test_a_site_whose_supernode_was_started_again_unseen_is_asked_again(
    grid, keys, settings, tmp_path, monkeypatch
):
    monkeypatch.setattr("server.inquiry.RECHECK_SECONDS", 0.05)
    settings = replace(settings, rounds=1, round_seconds=60.0, nodes=str(keys))
    play_job(grid, replace(settings, out=str(tmp_path / "unbroken")))

    def dying(message, context):
        if message.metadata.group_id == "1":
            grid.answers["b"] = client
            grid.started[2] = "a moment ago"  # and it knows of no order
            return None
        return client(message, context)

    grid.answers["b"] = dying
    play_job(grid, settings)

    record, unbroken = (
        json.loads((Path(out) / "rounds.jsonl").read_text())
        for out in (settings.out, tmp_path / "unbroken")
    )
    assert record["refused"] == {}
    assert record["digest"] == unbroken["digest"]
