"""Private jobs: what the sites spend, what leaves them, and how they end."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from dp_accounting.dp_event import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.pld import PLDAccountant
from flwr.app import MessageType

from client.app import app as client
from ctflow_fed.ct.store import LatentStore
from ctflow_fed.errors import IncompleteError, MismatchError
from ctflow_fed.model import PRESETS, fresh_network, load_package, save_package
from ctflow_fed.training import NoisySteps, describe, epsilon_of
from server.rounds import play_job

BATCH, NOISE = 2, 8.0


@pytest.fixture
def stores(stores, tmp_path):
    """Two sites: `a` with two patients of a study each, `b` with three."""
    return {
        site: with_patients(LatentStore.open(folder), tmp_path / "private" / site)
        for site, folder in stores.items()
    }


def with_patients(store: LatentStore, folder: Path) -> Path:
    weights = store.channel_weights.tolist()
    copy = LatentStore.create(folder, store.header, store.edges, weights)
    for number, each in enumerate(store.records):
        copy.put(
            each.study_id,
            store.slices(each.study_id, 0, each.slices),
            store.tokens(each.study_id),
            spacing=each.spacing,
            labels=each.labels,
            patient=f"patient-{number}",
        )
    return folder


@pytest.fixture
def settings(settings, stores, tmp_path):
    """Two private rounds of two steps that adapt a package."""
    network = fresh_network(PRESETS["nano"], seed=0)
    known = describe(LatentStore.open(stores["a"]), steps=0, seed=0)
    save_package(tmp_path / "base", network, known)
    base = {"init": str(tmp_path / "base"), "adapter_rank": 2, "batch_clips": BATCH}
    privacy = {"dp_epsilon": 100.0, "dp_noise": NOISE}
    return replace(settings, **base, **privacy, round_seconds=60.0)


def records_of(settings):
    lines = (Path(settings.out) / "rounds.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def budget_of(steps, patients):
    """What so many steps at a site with so many patients come to."""
    return epsilon_of([NoisySteps(NOISE, BATCH / patients, steps)], 1e-5)


def overheard(replies):
    """Answer as the client does, and keep what was answered."""

    def answer(message, context):
        reply = client(message, context)
        replies.append((message.metadata.message_type, reply.content))
        return reply

    return answer


def test_what_is_spent_is_what_dp_accounting_says(direct_grid, stores, settings):
    play_job(direct_grid(stores), replace(settings, rounds=3))

    for record, steps in zip(records_of(settings), (2, 4, 6), strict=True):
        for site, patients in (("a", 2), ("b", 3)):
            step = PoissonSampledDpEvent(BATCH / patients, GaussianDpEvent(NOISE))
            expected = PLDAccountant().compose(step, steps).get_epsilon(1e-5)
            assert record["epsilon"][site] == pytest.approx(expected, abs=1e-9)
    provenance = load_package(Path(settings.out) / "model").provenance
    assert provenance.epsilon == max(records_of(settings)[-1]["epsilon"].values())
    assert provenance.delta == 1e-5
    assert "epsilon" in (Path(settings.out) / "model" / "card.md").read_text()


def test_nothing_leaves_a_site_but_noisy_weights_and_what_it_has_spent(
    direct_grid, stores, settings
):
    replies = []
    play_job(direct_grid(stores, a=overheard(replies)), settings)

    kinds = [kind for kind, _ in replies]
    assert kinds == [MessageType.QUERY, *[MessageType.TRAIN] * len(kinds[1:])]
    assert set(replies[0][1]["facts"]) == {"version", "site", "header"}
    for _, content in replies[-2:]:
        assert set(content) == {"receipt", "arrays", "metrics"}
        assert set(content["metrics"]) == {"epsilon", "steps", "spent"}
        assert all(name.endswith(".lora_B") for name in content["arrays"])


def test_no_loss_and_no_count_is_in_the_record_and_all_sites_count_the_same(
    direct_grid, stores, settings
):
    play_job(direct_grid(stores), settings)

    for record in records_of(settings):
        assert record["slices"] == {"a": 1, "b": 1}
        assert record.pop("losses") == {}
        assert {v for k, v in record.items() if "loss" in k} == {None}
    base = load_package(Path(settings.init)).provenance
    model = load_package(Path(settings.out) / "model").provenance
    assert (model.slices, model.spacing) == (base.slices, base.spacing)


def test_a_site_takes_part_until_its_budget_is_spent_and_the_job_until_all_are(
    direct_grid, stores, settings
):
    # `a` samples both of its patients in every step and spends more than `b`.
    settings = replace(settings, rounds=9, dp_epsilon=budget_of(3, 2))
    grid = direct_grid(stores)
    play_job(grid, settings)

    records = records_of(settings)
    assert [sorted(each["slices"]) for each in records[:3]] == [
        ["a", "b"],
        ["a", "b"],
        ["b"],
    ]
    assert records[1]["spent"] == ["a"]
    assert records[1]["epsilon"]["a"] == budget_of(3, 2)  # one step of the round's two
    assert "budget is spent" in records[2]["refused"]["a"]
    assert records[2]["strikes"] == []
    assert len(records) < 9
    assert records[-1]["spent"] == ["b"]
    assert max(each["epsilon"].get("b", 0) for each in records) <= settings.dp_epsilon
    assert load_package(Path(settings.out) / "model").digest == records[-1]["digest"]

    again = direct_grid(stores)
    play_job(again, settings)
    assert again.sent == []


def test_sites_that_find_their_budgets_spent_end_the_job_with_the_weights_of_before(
    direct_grid, stores, settings, stopping_in
):
    settings = replace(settings, dp_epsilon=budget_of(4, 2), min_sites=2)
    with pytest.raises(KeyboardInterrupt):  # the second round is trained and lost
        play_job(direct_grid(stores, b=stopping_in(2)), settings)
    play_job(direct_grid(stores), settings)

    first, second = records_of(settings)
    assert second["slices"] == second["moved"] == {}
    assert second["spent"] == ["a"]
    assert "budget is spent" in second["refused"]["a"]
    assert second["digest"] == first["digest"]
    assert load_package(Path(settings.out) / "model").digest == first["digest"]


def test_a_site_that_cannot_tell_its_patients_apart_says_so(
    direct_grid, stores, settings
):
    for study in (lines := (stores["a"] / "index.jsonl")).read_text().splitlines():
        value = json.loads(study) | {"patient": ""}
        lines.write_text(json.dumps(value) + "\n")

    play_job(direct_grid(stores), replace(settings, rounds=1))
    (record,) = records_of(settings)
    assert "patient" in record["refused"]["a"]
    assert set(record["slices"]) == {"b"}


def test_a_site_that_has_spent_more_than_the_budget_is_refused(
    direct_grid, stores, settings
):
    def spending(message, context):
        reply = client(message, context)
        if "metrics" in reply.content:
            reply.content["metrics"]["epsilon"] = 101.0
        return reply

    play_job(direct_grid(stores, b=spending), replace(settings, rounds=1))

    (record,) = records_of(settings)
    assert record["strikes"] == ["b"]
    assert "privacy budget" in record["refused"]["b"]


def test_a_site_that_tells_counts_takes_no_part_in_a_private_job(
    direct_grid, stores, settings
):
    def telling(message, context):
        if message.metadata.message_type == MessageType.QUERY:
            del message.content["private"]
        return client(message, context)

    with pytest.raises(MismatchError, match="must not know"):
        play_job(direct_grid(stores, b=telling), settings)


def test_a_private_job_needs_a_site_with_enough_patients(direct_grid, stores, settings):
    grid = direct_grid(stores)

    with pytest.raises(IncompleteError, match="take fewer clips in a step"):
        play_job(grid, replace(settings, batch_clips=4))
