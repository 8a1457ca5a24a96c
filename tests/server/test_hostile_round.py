"""Whole rounds among hostile sites, and a site under a hostile server.

What is sent is counted by kind: nothing of it counts, nothing crashes, and the ledger
or the audit log names each. What a stranger may send is in tests/deployment.
"""

import json
import random
import tarfile
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from client.app import app as client
from ctflow_fed.ct.store import LatentStore
from ctflow_fed.deployment.consortium import Consortium
from ctflow_fed.deployment.provision import provision
from ctflow_fed.deployment.site.audit import AuditLog
from ctflow_fed.deployment.site.policy import read_policy
from ctflow_fed.deployment.site.site import Site
from ctflow_fed.federation import RAW, RoundOrder
from ctflow_fed.model import PRESETS
from ctflow_fed.training import PrivacySettings, TrainSettings
from server.rounds import play_job

FLOAT_MAX = float(np.finfo(np.float32).max)
STRANGE = (b"\xff" * 9, "x" * 5000, -7, 2**62, float("nan"), ["x"] * 3, [1.5, -1.5], "")


def with_array(parts, dtype=None, shape=None, data=None):
    """Put another array in the place of the first one."""
    arrays = dict(parts["arrays"])
    name = min(arrays)
    old = arrays[name]
    shape = old.shape if shape is None else shape
    data = old.data if data is None else data
    arrays[name] = Array(dtype or old.dtype, shape, RAW, data)
    return {**parts, "arrays": ArrayRecord(arrays)}


def with_value(parts, value):
    """Put one number into the first array."""
    values = np.frombuffer(parts["arrays"][min(parts["arrays"])].data, "<f4").copy()
    values[0] = value
    return with_array(parts, data=values.tobytes())


def scaled(parts, factor):
    """Multiply all weights."""
    arrays = {
        name: Array(
            each.dtype,
            each.shape,
            RAW,
            (np.frombuffer(each.data, "<f4") * np.float32(factor)).tobytes(),
        )
        for name, each in parts["arrays"].items()
    }
    return {**parts, "arrays": ArrayRecord(arrays)}


def with_values(parts, record, **values):
    """Change values of a record of texts or numbers; ``None`` leaves one out."""
    kind = type(parts[record])
    changed = dict(parts[record]) | {k.replace("_", "-"): v for k, v in values.items()}
    kept = {key: value for key, value in changed.items() if value is not None}
    return {**parts, record: kind(kept)}


def without(parts, record):
    return {name: each for name, each in parts.items() if name != record}


def fuzzed(parts, seed):
    """Spoil one thing at random."""
    chance = random.Random(seed)
    record = chance.choice(["receipt", "arrays", "metrics"])
    if chance.random() < 0.2:
        return without(parts, record)
    if record == "arrays":
        size = len(parts["arrays"][min(parts["arrays"])].data)
        noise = chance.randbytes(chance.choice([size, size - 1, size + 4, 0]))
        return with_array(parts, data=noise)
    if record == "metrics":
        name = chance.choice(["num_examples", "loss_first", "loss_last"])
        bad = chance.choice([-1.0, float("nan"), float("inf"), 1e300, [1.0, 2.0]])
        return with_values(parts, "metrics", **{name: bad})
    name = chance.choice(sorted(parts["receipt"]))
    return with_values(parts, "receipt", **{name: chance.choice(STRANGE)})


def renamed(parts, new):
    """Call the first array something else."""
    arrays = dict(parts["arrays"])
    arrays[new] = arrays.pop(min(arrays))
    return {**parts, "arrays": ArrayRecord(arrays)}


TAGS = ("version", "round", "start", "codec", "encoder")
SHAPES = [(2**40,), (2**31, 2**31), (-1,), (), (0, 7), (10**9,) * 4]
ANSWERS = {
    "fuzzed records": [partial(fuzzed, seed=seed) for seed in range(30)],
    "wrong tags": [
        partial(with_values, record="receipt", **{tag: value})
        for tag in TAGS
        for value in (None, "x")
    ],
    "huge or impossible shapes": [partial(with_array, shape=s) for s in SHAPES],
    "numbers that are not finite": [
        *(partial(with_value, value=v) for v in (np.nan, np.inf, -np.inf)),
        *(
            partial(with_values, record="metrics", **{name: value})
            for name in ("loss_first", "loss_last")
            for value in (float("nan"), float("inf"))
        ),
    ],
    "boosted norms": [
        *(partial(scaled, factor=f) for f in (12, -12, 1e3, -1e3, 1e9)),
        *(partial(with_value, value=v) for v in (FLOAT_MAX, -FLOAT_MAX)),
    ],
    "forged sites": [
        partial(with_values, record="receipt", site=name)
        for name in ("a", "", "../../etc", "a" * 10**6)
    ],
    "wrong weights in the mean": [
        partial(with_values, record="metrics", num_examples=count)
        for count in (0, -90, 10**9, 10**18, 0.5)
    ],
    "other arrays": [
        lambda parts: with_array(parts, dtype="float64"),
        lambda parts: with_array(parts, dtype="object"),
        lambda parts: renamed(parts, "../../weights"),
        lambda parts: renamed(parts, "another"),
        lambda parts: {**parts, "arrays": ArrayRecord({})},
        lambda parts: {**parts, "arrays": ConfigRecord({"a": b"\x80\x04pickle"})},
        lambda parts: {**parts, "arrays": MetricRecord({"a": 1.0})},
    ],
}
REPLAYS = 5
"""Sites that are silent in round 1, and in round 2 send what was right in round 1."""

ORDER = RoundOrder(
    round_number=1,
    steps=2,
    seed=0,
    training=TrainSettings(batch_clips=2),
    network=PRESETS["nano"],
    manifest="a" * 64,
    start="b" * 64,
    job="c" * 64,
    sites=2,
)


class Hostile:
    """Sites that answer to train with what `spoil` makes of the answer of site `a`."""

    def __init__(self, stores):
        self.stores, self.answers, self.kinds = {"a": stores["a"]}, {}, {}
        self._heard = {}
        self.answers["a"] = self._honest
        for kind, spoils in ANSWERS.items():
            for spoil in spoils:
                self._add(kind, partial(self._spoilt, spoil=spoil), stores["b"])
        for _ in range(REPLAYS):
            self._add("replayed rounds", self._replayed, stores["b"])

    def _add(self, kind, answer, store):
        site = f"h{len(self.kinds):03d}"
        self.kinds[site], self.stores[site] = kind, store
        self.answers[site] = partial(self._answered, site=site, answer=answer)

    def _honest(self, message, context):
        reply = client(message, context)
        if message.metadata.message_type == "train":
            self._heard[message.metadata.group_id] = dict(reply.content)
        return reply

    def _answered(self, message, context, site, answer):
        kind = message.metadata.message_type
        if kind == "query":
            return client(message, context)
        if kind == "evaluate":
            metrics = MetricRecord({"num-examples": 1, "loss": 0.0})
            return Message(RecordDict({"metrics": metrics}), reply_to=message)
        parts = answer(message.metadata.group_id, site)
        return Message(RecordDict(parts), reply_to=message) if parts else None

    def _own(self, number, site):
        """Return the right answer of a site to the order of a round."""
        parts = with_values(dict(self._heard[number]), "receipt", site=site)
        slices = sum(e.slices for e in LatentStore.open(self.stores[site]).records)
        return with_values(parts, "metrics", num_examples=slices)

    def _spoilt(self, number, site, spoil):
        return spoil(self._own(number, site))

    def _replayed(self, number, site):
        return None if number == "1" else self._own("1", site)


def lines_of(settings):
    lines = (Path(settings.out) / "rounds.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def check_reason(reason):
    assert 15 < len(reason) < 500
    assert reason.isprintable()


def test_among_hostile_sites_the_honest_one_has_the_model_that_it_has_alone(
    direct_grid, stores, settings, tmp_path
):
    alone = replace(settings, out=str(tmp_path / "alone"), sites=("a",))
    play_job(direct_grid({"a": stores["a"]}), alone)
    hostile = Hostile(stores)
    among = replace(settings, sites=tuple(hostile.stores))
    play_job(direct_grid(hostile.stores, **hostile.answers), among)

    for record, expected in zip(lines_of(among), lines_of(alone), strict=True):
        assert set(record["slices"]) == {"a"}
        assert record["digest"] == expected["digest"]
        assert set(record["refused"]) == set(hostile.kinds)
        for reason in record["refused"].values():
            check_reason(reason)
    assert set(lines_of(among)[1]["strikes"]) == set(hostile.kinds)
    assert Counter(hostile.kinds.values()) == {
        **{kind: len(spoils) for kind, spoils in ANSWERS.items()},
        "replayed rounds": REPLAYS,
    }


@pytest.fixture
def site(stores, tmp_path):
    """Site `a` of a consortium with the site.toml of its kit."""
    provision(Consortium("lung", "localhost", 443, ("a", "b")), tmp_path / "lung")
    with tarfile.open(tmp_path / "lung" / "kits" / "a.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    kit = tmp_path / "a"
    policy = replace(read_policy(kit / "site.toml"), minimum_studies=1)
    say = [].append
    return Site("a", "localhost:443", kit, stores["a"], policy, AuditLog(kit), say)


def order(**changes):
    return {"order": ConfigRecord({**replace(ORDER, **changes).to_record()})}


def strange(key, value):
    """Return an order with a strange value, or without one."""
    values = {**ORDER.to_record(), key: value}
    kept = {name: each for name, each in values.items() if each is not None}
    return {"order": ConfigRecord(kept)}


def step(**values):
    return {"secure": ConfigRecord(values)}


MUCH = PrivacySettings(epsilon=50.0)
QUESTIONS = {
    "orders beyond site.toml": [
        ("train", order(steps=3000)),
        ("train", order(sites=1)),
        ("evaluate", order(sites=1)),
        ("train", order(training=TrainSettings(batch_clips=4096))),
        ("train", order(adapter_rank=4, base="d" * 64)),
        ("train", order(privacy=MUCH)),
        ("train", order(privacy=replace(MUCH, epsilon=1.0, delta=1e-3))),
        ("evaluate", order(privacy=MUCH)),
    ],
    "broken orders": [
        *(
            ("train", strange(key, value))
            for key in ORDER.to_record()
            for value in (None, ["x"] * 3)
        ),
        ("train", {}),
        ("train", {"order": MetricRecord({"round": 1})}),
        ("train", {"order": ConfigRecord({})}),
    ],
    "broken steps of secure rounds": [
        ("query.secure", {}),
        ("query.secure", step(step="reveal", terms="[]", body="{}")),
        ("query.secure", step(step="advertise", terms="[" * 10**5, body="{}")),
        ("query.secure", step(step=["x"], terms=b"\x80\x04", body=7)),
    ],
    "kinds of message that no server sends": [
        ("train.more", order()),
        ("evaluate.more", order()),
        ("query.shell", {}),
    ],
}


def ask(grid, gate, kind, content):
    """Return why a site refuses a question, which must never reach its program."""
    gate = {"a": gate}
    grid = grid({"a": Path("/store")}, **gate)
    grid.push_messages([Message(RecordDict({**content}), 1, kind)])
    (reply,) = grid.pull_messages(["message-0"])
    check_reason(reply.content["refusal"]["reason"])


def never(message, context):
    raise AssertionError("a question has reached the program")


@pytest.mark.parametrize("kind", QUESTIONS)
def test_what_a_hostile_server_asks_is_refused_and_in_the_audit_log(
    direct_grid, gated, site, monkeypatch, kind
):
    monkeypatch.setattr("ctflow_fed.deployment.site.connection.IDLE_SECONDS", 0.0)
    gate = gated(site, never)
    for message_type, content in QUESTIONS[kind]:
        ask(direct_grid, gate, message_type, content)

    refused = [e for e in site.past() if e.decision == "refused"]
    assert len(refused) == len(QUESTIONS[kind])
    assert all(entry.reason for entry in refused)
    site.audit.verify()


def test_a_bundle_that_nobody_approved_or_that_was_changed_runs_nowhere(
    direct_grid, gated, site, monkeypatch
):
    monkeypatch.setattr("ctflow_fed.deployment.site.connection.IDLE_SECONDS", 0.0)
    ask(direct_grid, gated(site, never, b"other programs"), "query", {})
    gate = gated(site, never)
    (site.kit / "approved").write_text("")
    ask(direct_grid, gate, "query", {})

    reasons = [e.reason for e in site.past() if e.decision == "refused"]
    assert "not the one that the run names" in reasons[0]
    assert "not approved" in reasons[1]


def test_a_message_that_is_too_large_is_refused_before_it_is_whole(
    direct_grid, gated, site, monkeypatch
):
    monkeypatch.setattr("ctflow_fed.deployment.site.connection.IDLE_SECONDS", 0.0)
    small = replace(site, policy=replace(site.policy, megabytes=0.1))
    flood = ConfigRecord({"x": b"0" * 10**6})
    ask(direct_grid, gated(small, never), "train", {**order(), "more": flood})

    (entry,) = [e for e in site.past() if e.decision == "refused"]
    assert entry.reason.startswith("site.toml, megabytes: 0.1 allowed")


def test_these_are_more_than_a_hundred_messages():
    assert sum(map(len, ANSWERS.values())) + REPLAYS >= 80
    assert sum(map(len, QUESTIONS.values())) >= 50
