from dataclasses import replace

import numpy as np
import pytest

from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.ct.phantom import HELD_OUT, HOSPITALS
from ctflow_fed.demo import DemoSettings, Places
from ctflow_fed.demo.account import _rounds, pairs_of
from ctflow_fed.demo.chain import (
    balancing_plan,
    federation_settings,
    scanned_alike,
    train_together,
    write_scans,
)
from ctflow_fed.demo.places import items_of, rows_of
from ctflow_fed.federation import RoundRecord, open_job
from ctflow_fed.model import Provenance, load_package, save_package

SMALL = DemoSettings(studies=2, real=3, tested=2, slices=16, image_size=16)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    places = Places(tmp_path_factory.mktemp("demo"))
    write_scans(places, SMALL)
    return places


def labelled(*sets):
    items = []
    for names in sets:
        label = np.array([name in names for name in FINDINGS], dtype=np.float32)
        items.append({"image": "a.nii.gz", "label": label})
    return items


def count(plan, name):
    return plan.positives()[name]


def test_hospitals_keep_their_scanners_and_share_a_grid():
    north, held_out = (
        scanned_alike(each, SMALL).scanner for each in (HOSPITALS["north"], HELD_OUT)
    )

    assert (north.rows, north.slices) == (held_out.rows, held_out.slices) == (16, 16)
    assert north.noise_hu == HOSPITALS["north"].scanner.noise_hu
    assert north.slices * north.slice_mm == pytest.approx(300)


def test_every_set_of_studies_is_written(places):
    for name in HOSPITALS:
        assert len(rows_of(places.hospital(name))) == SMALL.studies
    assert len(items_of(places.real)) == SMALL.real
    assert len(items_of(places.test)) == SMALL.tested


def test_no_patient_is_in_two_sets(places):
    folders = [places.hospital(n) for n in HOSPITALS] + [places.real, places.test]
    reports = [(r["findings"], r["age"]) for f in folders for r in rows_of(f)]

    assert len(set(reports)) == len(reports)


def test_an_item_says_what_its_row_says(places):
    for item, row in zip(items_of(places.real), rows_of(places.real), strict=True):
        assert item["label"].tolist() == [float(row[name]) for name in FINDINGS]
        assert item["report"] == f"{row['findings']}\n{row['impression']}"
        assert not item["synthetic"]


def test_the_model_of_a_finished_federation_is_put_where_it_belongs(tmp_path):
    places = Places(tmp_path)
    settings = replace(SMALL, preset="nano", rounds=1)
    job = open_job(federation_settings(places, settings))
    network = job.part.network(job.state.model)
    made = Provenance(
        codec_id="haar",
        encoder_id="hashing",
        latent_size=(4, 4),
        slices=16,
        spacing=(8.0, 8.0, 8.0),
        steps=1,
        seed=0,
    )
    digest = save_package(tmp_path / "package", network, made)
    record = RoundRecord(
        round=1,
        slices={"north": 1},
        moved={"north": 0.1},
        refused={},
        strikes=[],
        train_loss_first=1.0,
        train_loss_last=1.0,
        loss_before=1.0,
        loss_after=0.5,
        losses={"a": 0.5},
        seconds=1.0,
        sent=1,
        received=0,
        shards=0,
        digest=digest,
        state="",
        epsilon={},
        spent=[],
        attempts=1,
    )
    job.ledger.commit(record, lambda to: save_package(to, network, made))
    (tmp_path / ".partial-model").mkdir()  # as a stopped run left it

    for _ in "ab":
        train_together(places, settings, str)

    assert places.model == tmp_path / "model"
    assert load_package(places.model).digest == digest
    assert not (tmp_path / ".partial-model").exists()
    assert [each.loss_after for each in _rounds(places)] == [0.5]


def test_the_plan_has_as_many_volumes_as_were_asked_for():
    items = labelled({"Emphysema"}, {"Emphysema"}, set())

    for wanted in (1, 7, 30):
        plan = balancing_plan(items, replace(SMALL, synthetic=wanted))

        assert len(plan) == wanted


def test_the_plan_makes_up_for_what_is_rare():
    items = labelled(*[{"Emphysema", "Cardiomegaly"}] * 5, {"Lung nodule"})

    plan = balancing_plan(items, replace(SMALL, synthetic=40))

    assert count(plan, "Emphysema") < count(plan, "Bronchiectasis")
    assert count(plan, "Lung nodule") <= count(plan, "Bronchiectasis")


def test_the_plan_is_a_function_of_the_seed():
    items = labelled({"Emphysema"}, set())
    first, again, other = (
        balancing_plan(items, replace(SMALL, synthetic=9, seed=seed))
        for seed in (1, 1, 2)
    )

    assert first.plan_id == again.plan_id != other.plan_id


def test_the_plan_adds_findings_as_rarely_as_in_the_public_collection():
    plan = balancing_plan(labelled({"Emphysema"}, set()), replace(SMALL, synthetic=200))

    others = np.mean([len(each.findings) - 1 for each in plan.requests])
    assert 1.5 < others < 3.2  # 0.15 of the 17 others, fewer where they have enough


def test_the_volume_with_the_fewest_other_findings_is_shown(places):
    real = items_of(places.real)
    shown = {
        name: min(
            (i for i in real if i["label"][FINDINGS.index(name)]),
            key=lambda i: (i["label"].sum(), i["sample_id"]),
        )
        for name in FINDINGS
        if any(item["label"][FINDINGS.index(name)] for item in real)
    }

    pairs = pairs_of(real, real)

    assert pairs
    for pair in pairs:
        assert pair.finding in pair.real.findings
        assert pair.real.report == shown[pair.finding]["report"]
        assert pair.real.volume.hu.shape == (16, 16, 16)
