"""Whole rounds through the gates of three sites, as their launchers hold them."""

import json
import shutil
import tarfile
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from ctflow_fed.ct.store import LatentStore
from ctflow_fed.deployment.consortium import Consortium
from ctflow_fed.deployment.provision import provision
from ctflow_fed.errors import IncompleteError
from ctflow_fed.model import PRESETS, fresh_network, load_package, save_package
from ctflow_fed.training import describe
from server.rounds import play_job

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what Flower imports warns about click 9
    from cryptography.hazmat.primitives import serialization

    from ctflow_fed.deployment.site.audit import AuditLog
    from ctflow_fed.deployment.site.policy import POLICY, read_policy
    from ctflow_fed.deployment.site.site import Site

SITES = ("a", "b", "c")
STRICT = {
    "minimum_noise = 0.0": "minimum_noise = 4.0",
    "minimum_sites = 2": "minimum_sites = 3",
    "secure_aggregation = false": "secure_aggregation = true",
    'metrics = ["num-examples", "loss-first", "loss-last", "loss"]': "metrics = []",
}


@pytest.fixture
def stores(haar_store, tmp_path):
    """Three sites with three patients each."""
    like = LatentStore.open(haar_store)
    for site in SITES:
        folder, weights = tmp_path / "stores" / site, like.channel_weights.tolist()
        store = LatentStore.create(folder, like.header, like.edges, weights)
        for each in like.records:
            store.put(
                each.study_id,
                like.slices(each.study_id, 0, each.slices),
                like.tokens(each.study_id),
                spacing=each.spacing,
                labels=each.labels,
                patient=each.study_id,
            )
    save_package(
        tmp_path / "base",
        fresh_network(PRESETS["nano"], seed=0),
        describe(store, steps=0, seed=0),
    )
    return {site: tmp_path / "stores" / site for site in SITES}


@pytest.fixture
def grid(direct_grid, gated, stores, tmp_path, monkeypatch):
    """Three sites with the kits of a consortium and the strictest of policies."""
    monkeypatch.setattr("ctflow_fed.deployment.site.connection.IDLE_SECONDS", 0.0)
    provision(Consortium("lung", "localhost", 443, SITES), tmp_path / "lung")
    base = load_package(tmp_path / "base").digest
    changes = {
        **STRICT,
        "minimum_studies = 5": "minimum_studies = 3",
        "base_models = []": f'base_models = ["{base}"]',
    }
    gates = {}
    for site in SITES:
        with tarfile.open(tmp_path / "lung" / "kits" / f"{site}.tar.gz") as kit:
            kit.extractall(tmp_path / "kits", filter="data")
        kit = tmp_path / "kits" / site
        text = (kit / POLICY).read_text()
        for before, after in changes.items():
            assert before in text
            text = text.replace(before, after)
        (kit / POLICY).write_text(text)
        policy = read_policy(kit / POLICY)
        gates[site] = gated(site_of(site, kit, stores[site], policy))
    grid = direct_grid(stores, **gates)
    for node, site in grid.nodes.items():
        public = (tmp_path / "lung" / "server" / "nodes" / f"{site}.pub").read_bytes()
        grid.keys[node] = serialization.load_ssh_public_key(public).public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    return grid


def site_of(name, kit, store, policy):
    address, say = "localhost:443", lambda line: None
    return Site(name, address, kit, store, policy, AuditLog(kit), say)


@pytest.fixture
def settings(settings, tmp_path):
    return replace(
        settings,
        sites=SITES,
        nodes=str(tmp_path / "lung" / "server" / "nodes"),
        init=str(tmp_path / "base"),
        adapter_rank=2,
        round_seconds=300.0,
        dp_epsilon=8.0,
        dp_noise=4.0,
        secure_aggregation=True,
    )


def records_of(settings):
    lines = (Path(settings.out) / "rounds.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_sites_that_demand_noise_and_secrecy_are_given_both(grid, settings, tmp_path):
    play_job(grid, settings)

    for record in records_of(settings):
        assert record["refused"] == record["moved"] == {}
        assert record["slices"] == dict.fromkeys(SITES, 1)
        assert len(record["epsilon"]) == 3
    assert load_package(Path(settings.out) / "model").provenance.epsilon < 8.0
    for site in SITES:
        log = AuditLog(tmp_path / "kits" / site)
        log.verify()
        steps = [e.kind for _, e in log.entries() if e.event == "out"]
        assert steps.count("query.secure") == 2 * 4
        assert not any(e.decision == "refused" for _, e in log.entries())


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"secure_aggregation": False}, "secure_aggregation"),
        ({"dp_noise": 2.0}, "noise"),
    ],
)
def test_a_job_that_offers_less_is_refused_with_the_line(grid, settings, change, line):
    with pytest.raises(IncompleteError, match=rf"site\.toml, [a-z_]*{line}"):
        play_job(grid, replace(settings, **change))


@pytest.mark.slow
def test_a_second_job_is_held_to_what_the_first_has_left_of_all_budgets(
    grid, settings, tmp_path
):
    play_job(grid, replace(settings, rounds=1))
    spent = records_of(settings)[0]["epsilon"]["a"]
    rest = replace(settings, out=str(tmp_path / "second"), rounds=1)

    with pytest.raises(IncompleteError, match=r"site\.toml, largest_epsilon: 10 "):
        play_job(grid, replace(rest, dp_epsilon=10.1 - spent))
    shutil.rmtree(rest.out)
    play_job(grid, replace(rest, dp_epsilon=9.9 - spent))
    assert len(records_of(rest)) == 1


def test_a_site_with_the_certificate_of_another_consortium_is_left_out_by_name(
    grid, settings, tmp_path
):
    provision(Consortium("other", "localhost", 443, SITES), tmp_path / "other")
    with tarfile.open(tmp_path / "other" / "kits" / "c.tar.gz") as kit:
        kit.extract("c/site.pem", tmp_path / "forged", filter="data")
    shutil.copyfile(tmp_path / "forged/c/site.pem", tmp_path / "kits/c/site.pem")

    with pytest.raises(IncompleteError, match="at least 3 sites, got 2"):
        play_job(grid, settings)
