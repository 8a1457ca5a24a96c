"""The gate: what an order may ask for and what an answer may hold."""

from dataclasses import replace
from datetime import time

import numpy as np
import pytest

from ctflow_fed.deployment.site.amounts import Holdings, Spent, spent
from ctflow_fed.deployment.site.audit import Entry
from ctflow_fed.deployment.site.gate import (
    WireLike,
    arrays_in,
    check_arrays,
    check_order,
    check_size,
    check_spending,
    clean_records,
    read_order,
)
from ctflow_fed.deployment.site.policy import SITE_TOML, Hours, read_policy
from ctflow_fed.errors import UpdateError
from ctflow_fed.federation import (
    RAW,
    FederationSettings,
    RoundOrder,
    manifest_of,
    pack,
    packed,
    shards,
    stow,
    unstow,
)
from ctflow_fed.model import PRESETS
from ctflow_fed.training import NoisySteps, PrivacyLedger, PrivacySettings

ORDER = RoundOrder(
    round_number=1,
    steps=100,
    seed=0,
    training=FederationSettings(out="job", sites=("a",)).training(),
    network=PRESETS["nano"],
    manifest="a" * 64,
    start="b" * 64,
    job="c" * 64,
    sites=2,
)
PRIVATE = replace(ORDER, privacy=PrivacySettings(epsilon=1.0, noise_multiplier=8.0))
STORE = Holdings(studies=20, slices=1600)  # an order goes over it 8 times


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    path = tmp_path_factory.mktemp("kit") / "site.toml"
    path.write_text(SITE_TOML)
    return read_policy(path)


def check(policy, order=ORDER, used=Spent(), store=STORE, kind="train"):  # noqa: B008
    check_order(policy, kind, order, used, store, time(12))


def test_a_normal_order_passes(policy):
    check(policy)


def test_the_order_of_our_server_is_read():
    assert read_order(ORDER.to_record()) == ORDER


def test_an_order_with_enough_noise_passes_and_asks_for_no_metrics(policy):
    strict = replace(policy, minimum_noise=8.0, metrics=())

    assert read_order(PRIVATE.to_record()) == PRIVATE
    check(strict, PRIVATE)
    with pytest.raises(UpdateError, match=r"^site\.toml, minimum_noise: 8.5 required"):
        check(replace(strict, minimum_noise=8.5), PRIVATE)


def test_all_private_jobs_together_keep_to_one_budget(policy):
    small = replace(policy, largest_epsilon=3.0)
    check(small, PRIVATE, Spent(epsilon=2.0))
    check(small, ORDER, Spent(epsilon=9.0))  # it has no promise to keep

    with pytest.raises(UpdateError, match=r"^site\.toml, largest_epsilon: 3 .* 3.5 in"):
        check(small, PRIVATE, Spent(epsilon=2.5))
    lax = replace(PRIVATE, privacy=replace(PRIVATE.privacy, delta=1e-3))
    with pytest.raises(UpdateError, match=r"largest_epsilon: counted at a delta"):
        check(small, lax)


def test_no_loss_is_told_in_a_private_job(policy):
    with pytest.raises(UpdateError, match="a loss has no noise"):
        check(policy, PRIVATE, kind="evaluate")


@pytest.mark.parametrize(
    "change",
    [
        {"round": True},
        {"training": "[]"},
        {"job": "../../x"},
        {"steps": -1},
        {"privacy": "[]"},
        {"privacy": '{"epsilon": "much"}'},
    ],
)
def test_what_is_no_order_is_refused(change):
    with pytest.raises(UpdateError):
        read_order({**ORDER.to_record(), **change})
    with pytest.raises(UpdateError, match="expected an order"):
        read_order(None)


@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        ("steps", {"steps": 99}),
        ("rounds", {"rounds": 0}),
        ("epochs", {"epochs": 7.9}),
        ("hours", {"hours": Hours(time(19), time(7))}),
        ("payloads", {"payloads": ("adapter",)}),
        ("minimum_studies", {"minimum_studies": 21}),
        ("minimum_noise", {"minimum_noise": 1.0}),
        ("minimum_sites", {"minimum_sites": 3}),
        ("secure_aggregation", {"secure_aggregation": True}),
        ("metrics", {"metrics": ("num-examples", "loss-first")}),
    ],
)
def test_an_order_that_asks_for_more_is_refused_with_the_line(policy, line, allowed):
    with pytest.raises(UpdateError, match=rf"^site\.toml, {line}: "):
        check(replace(policy, **allowed))


def test_a_refusal_says_what_is_allowed_and_what_was_asked(policy):
    reason = r"site\.toml, steps: 500 allowed, the order asks for 2000"
    with pytest.raises(UpdateError, match=reason):
        check(replace(policy, steps=500), replace(ORDER, steps=2000))


def test_an_adapter_needs_an_approved_base(policy):
    adapter = replace(ORDER, adapter_rank=4, base="b" * 64)

    with pytest.raises(UpdateError, match="base_models"):
        check(policy, adapter)
    check(replace(policy, base_models=("b" * 64,)), adapter)


def test_rounds_and_passes_are_counted_for_a_bundle_since_its_last_approval():
    train = Entry(event="in", kind="train", bundle="x", passes=2.0)
    past = [
        train,
        Entry(event="approve", bundle="x"),
        train,
        replace(train, decision="refused"),
        replace(train, bundle="y"),
        replace(train, kind="evaluate"),
        train,
        Entry(event="approve", bundle="x", decision="refused"),
    ]

    assert spent(past, "x") == Spent(rounds=2, passes=4.0)


def test_what_is_spent_counts_with_what_is_asked(policy):
    tight = replace(policy, rounds=3, epochs=24)

    check(tight, used=Spent(2, 16.0))
    with pytest.raises(UpdateError, match="rounds"):
        check(tight, used=Spent(3, 0.0))
    with pytest.raises(UpdateError, match="epochs"):
        check(tight, used=Spent(0, 16.5))
    check(tight, used=Spent(3, 24.0), kind="evaluate")


def test_a_message_that_is_too_large_is_refused(policy):
    check_size(policy, 4_000_000_000)
    with pytest.raises(UpdateError, match="megabytes"):
        check_size(policy, 4_000_000_001)


def test_numbers_leave_as_coarse_as_the_site_says(policy):
    metrics = {"num-examples": 12345, "loss-first": 0.123456, "loss-last": 0.1}
    facts = {"slices": 12345, "studies": 1234, "spacing": [1.2345, 1.0, 1.0]}

    told = clean_records(policy, "train", {"metrics": metrics})["metrics"]
    stated = clean_records(policy, "query", {"facts": facts})["facts"]
    assert told == {"num-examples": 12300, "loss-first": 0.123, "loss-last": 0.1}
    assert stated == {"slices": 12300, "studies": 1230, "spacing": [1.23, 1.0, 1.0]}
    assert type(told["num-examples"]) is type(stated["slices"]) is int


@pytest.mark.parametrize(
    ("kind", "records"),
    [
        ("train", {"report": {"text": "x"}}),
        ("query", {"metrics": {}}),
        ("train", {"metrics": {"age": 3}}),
        ("train", {"metrics": {"loss-first": float("nan")}}),
        ("train", {"metrics": {"loss-first": [0.1] * 1000}}),
        ("train", {"receipt": {"note": "x"}}),
        ("train", {"receipt": {"start": b"bytes"}}),
        ("train", {"receipt": {"start": "x" * 5000}}),
        ("query", {"facts": {"spacing": [1.0] * 1000}}),
    ],
)
def test_an_answer_that_holds_more_than_an_answer_is_kept_back(policy, kind, records):
    with pytest.raises(UpdateError):
        clean_records(policy, kind, records)


def test_a_private_update_has_the_numbers_of_the_promise_and_no_other(policy):
    told = {"epsilon": 0.123456, "steps": 2, "spent": 0}

    cleaned = clean_records(policy, "train", {"metrics": told}, private=True)
    assert cleaned == {"metrics": told}  # what is spent is not rounded down
    for more in ({"num-examples": 3}, {"loss-first": 0.1}):
        with pytest.raises(UpdateError, match="private update"):
            clean_records(policy, "train", {"metrics": told | more}, private=True)


def test_a_site_that_demands_noise_tells_no_counts(policy):
    facts = {"site": "a", "slices": 12345, "studies": 1234, "spacing": [1.0, 1.0, 1.0]}
    strict = replace(policy, minimum_noise=1.0)

    assert clean_records(strict, "query", {"facts": facts}) == {"facts": {"site": "a"}}


def test_a_private_update_leaves_if_the_ledger_of_the_site_bears_it_out(tmp_path):
    ledger = PrivacyLedger(tmp_path / "privacy.json", PRIVATE.privacy)
    ledger.book(NoisySteps(8.0, 0.5, 2))

    check_spending(PRIVATE, {"epsilon": ledger.epsilon()}, ledger)
    with pytest.raises(UpdateError, match="does not bear"):
        check_spending(PRIVATE, {"epsilon": ledger.epsilon() / 2}, ledger)
    ledger.book(NoisySteps(2.0, 0.5, 1))  # less noise than the order asks for
    with pytest.raises(UpdateError, match="does not bear"):
        check_spending(PRIVATE, {"epsilon": ledger.epsilon()}, ledger)


def test_a_refusal_leaves_as_one_short_line(policy):
    record = {"site": "a", "reason": "a\nb" + "c" * 5000, "more": "x"}
    (told,) = clean_records(policy, "train", {"refusal": record}).values()

    assert set(told) == {"site", "reason"}
    assert told["reason"].startswith("a b")
    assert len(told["reason"]) == 400


def wire(*values, precision="float32", **form):
    (array,) = pack({"w": np.array(values, np.float32)}, precision).values()
    form = {"dtype": array.dtype, "shape": array.shape, "stype": RAW, **form}
    return {"w": WireLike(**form, pieces=(array.data[:1], array.data[1:]))}


START = {"w": np.array([3, 4], np.float32)}
MANIFEST = manifest_of(START)


@pytest.mark.parametrize(
    ("precision", "sent"), [("float32", (3, 8)), ("bfloat16", (0, 4)), ("int8", (0, 4))]
)
def test_weights_may_move_by_a_multiple_of_their_length(policy, precision, sent):
    update = arrays_in(wire(*sent, precision=precision), precision, MANIFEST)

    check_arrays(replace(policy, largest_norm=0.81), update, precision, START, 5.0)
    with pytest.raises(UpdateError, match=r"largest_norm: 0.5 allowed.* moved 0\.8"):
        check_arrays(replace(policy, largest_norm=0.5), update, precision, START, 5.0)


@pytest.mark.parametrize(
    "sent",
    [
        {},
        {**wire(1, 2), "more": wire(1)["w"]},
        wire(1, 2, 3),
        wire(1, 2, shape=(1, 2)),
        wire(1, 2, dtype="int8"),
        wire(1, 2, stype="numpy.ndarray"),
        wire(1, 2, 3, shape=(2,)),
        wire(1, float("nan")),
        wire(1, float("inf")),
    ],
)
def test_weights_that_are_not_those_that_came_are_kept_back(sent):
    with pytest.raises(UpdateError):
        arrays_in(sent, "float32", MANIFEST)


def test_a_site_that_lacks_the_weights_may_say_so(policy):
    lacking = {"lacking": {"site": "a", "more": "x"}}

    assert clean_records(policy, "train", lacking) == {"lacking": {"site": "a"}}


@pytest.fixture
def in_shards(monkeypatch, tmp_path):
    """A function that puts an update into shards of a few bytes, and reads it there."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 5)

    def stowed(*values):
        update = {"a": np.zeros(1, np.float32), "w": np.array(values, np.float32)}
        manifest = manifest_of(update)
        cargo = stow(packed(update, manifest), manifest, "float32", tmp_path)
        return unstow(cargo, manifest, "float32", tmp_path)

    return stowed


def test_an_update_in_shards_is_gated_like_one_in_a_message(policy, in_shards):
    start = {"a": np.zeros(1, np.float32), **START}
    check_arrays(policy, in_shards(3, 8), "float32", start, 5.0)
    tight = replace(policy, largest_norm=0.5)
    with pytest.raises(UpdateError, match=r"largest_norm: 0.5 allowed.* moved 0\.8"):
        check_arrays(tight, in_shards(3, 8), "float32", start, 5.0)
    with pytest.raises(UpdateError, match="not finite"):
        check_arrays(policy, in_shards(1, float("nan")), "float32", start, 5.0)


def test_the_names_of_shards_leave_and_nothing_beside_them(policy):
    names = {"digests": "a" * 64, "sizes": "5"}
    told = clean_records(policy, "train", {"arrays": {**names, "note": "x"}})

    assert told == {"arrays": names}
    with pytest.raises(UpdateError, match="digests and sizes"):
        clean_records(policy, "train", {"arrays": {**names, "digests": "../x"}})
    with pytest.raises(UpdateError, match="more than an answer"):
        clean_records(policy, "evaluate", {"arrays": names})
