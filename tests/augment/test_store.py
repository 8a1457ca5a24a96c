import json
import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from ctflow_fed.augment import GenerateSettings, Plan, SynthStore, generate, plan
from ctflow_fed.augment.shard import Shard
from ctflow_fed.ct.nifti import read_nifti
from ctflow_fed.errors import MismatchError, StoreError

QUICK = GenerateSettings(steps=1, solver="euler")


@pytest.fixture
def store(tmp_path, model, small_plan):
    """A finished set of four volumes."""
    out = tmp_path / "set"
    return generate(small_plan, model=model, out=out, workers=0, settings=QUICK)


def spoil(store, **changes):
    """Change the sidecar of the first volume, and return its id."""
    sample_id = store.records()[0].sample_id
    value = json.loads(store.sidecar(sample_id).read_text())
    store.sidecar(sample_id).write_text(json.dumps({**value, **changes}))
    return sample_id


def test_a_set_knows_each_volume_by_a_sidecar_that_fits_it(store, small_plan):
    records = store.records()

    assert {each.seed for each in records} == {r.seed for r in small_plan.requests}
    assert store.status().positives["Bronchiectasis"] == 2
    assert store.status().done == store.status().planned == 4


def test_a_volume_says_that_it_is_synthetic_wherever_one_looks(store):
    import nibabel

    record = store.records()[0]
    image = store.image(record.sample_id)

    assert b"SYNTHETIC" in nibabel.load(image).header["descrip"].item()
    assert json.loads(store.sidecar(record.sample_id).read_text())["synthetic"] is True


def test_the_sidecar_describes_the_volume_as_it_is_read(store):
    record = store.records()[0]

    volume = read_nifti(store.image(record.sample_id))

    assert volume.hu.shape == record.shape == (8, 32, 32)
    np.testing.assert_allclose(volume.spacing, record.spacing, rtol=1e-6)


def test_a_given_report_stays_in_the_plan_and_out_of_sidecars_and_manifest(store):
    (given,) = [each for each in store.records() if each.report_source == "given"]
    outside = [*store.folder.glob("volumes/*.json"), store.folder / "manifest.jsonl"]

    assert store.report(given) == "Small pleural effusion on the right."
    assert not any("Small pleural" in path.read_text() for path in outside)
    (store.folder / "plan.json").unlink()
    assert SynthStore(store.folder).report(given) == ""


def test_the_manifest_lists_every_volume_once_and_in_order(store):
    lines = (store.folder / "manifest.jsonl").read_text().splitlines()

    ids = [json.loads(line)["sample_id"] for line in lines]
    assert ids == [each.sample_id for each in store.records()]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"volumes": 3, "manifest": 4}', "9"])
def test_what_was_seen_before_only_saves_reading(store, small_plan, text):
    first, second, third = (each.sample_id for each in store.records()[:3])
    status = store.image(second).stat()
    store.sidecar(first).write_text("{")
    store.image(second).write_bytes(b"x" * status.st_size)
    store.image(third).unlink()

    lacking = {
        store.header.origin.sample_id(each) for each in store.missing(small_plan)
    }
    (store.folder / "seen.json").write_text(text)
    unaided = {
        store.header.origin.sample_id(each) for each in store.missing(small_plan)
    }

    assert lacking == unaided == {first, third}


def test_a_manifest_that_was_edited_by_hand_is_written_again(store, small_plan, model):
    manifest = store.folder / "manifest.jsonl"
    before = manifest.read_text()
    manifest.write_text(before.replace('"synthetic": true', '"synthetic": false'))

    generate(small_plan, model=model, out=store.folder, workers=0, settings=QUICK)

    assert manifest.read_text() == before


def test_nobody_reads_the_manifest_so_its_lies_do_no_harm(store):
    before = store.records()

    (store.folder / "manifest.jsonl").write_text('{"image": "/etc/passwd"}\n' * 9)

    assert SynthStore(store.folder).records() == before


@pytest.mark.parametrize(
    "changes",
    [
        {"sample_id": "../../../etc/passwd"},
        {"sample_id": "0" * 32},
        {"labels": {"Bronchiectasis": 1}},
        {"labels": []},
        {"synthetic": False},
        {"synthetic": 1},
        {"origin": {"model": "another"}},
        {"format": "ctflow-fed sample 1"},
        {"bytes": 1},
        {"bytes": True},
        {"shape": [1, 2]},
        {"shape": "abc"},
        {"spacing": [1.0, 1.0, float("nan")]},
        {"spacing": [1.0, 1.0, 10**400]},
        {"sha256": "z" * 64},
        {"report": 5},
        {"report": "x" * 100_000},
        {"format": "another"},
    ],
)
def test_a_sidecar_that_lies_is_damage_and_no_volume(store, changes):
    sample_id = spoil(store, **changes)

    assert sample_id not in store
    assert (store.status().done, store.status().damaged) == (3, 1)
    with pytest.raises(StoreError, match="again"):
        store.records()


@pytest.mark.parametrize("text", ["", "{", "[" * 90_000, "\0", '"x"', "1" * 9000])
def test_a_sidecar_that_is_no_json_is_damage_and_no_volume(store, text):
    sample_id = store.records()[0].sample_id

    store.sidecar(sample_id).write_text(text)

    assert sample_id not in store


def test_a_volume_that_is_a_link_to_elsewhere_is_damage(store, tmp_path):
    sample_id = store.records()[0].sample_id
    image = store.image(sample_id)
    image.rename(tmp_path / "elsewhere.nii.gz")

    image.symlink_to(tmp_path / "elsewhere.nii.gz")

    assert sample_id not in store


def test_files_of_other_names_are_not_ours(store):
    (store.folder / "volumes" / "notes.json").write_text("{}")

    assert len(store.records()) == 4


@pytest.mark.parametrize("sample_id", ["", "..", "../" * 10 + "a", "A" * 32, "a" * 33])
def test_an_id_that_is_none_becomes_no_path(store, sample_id):
    with pytest.raises(StoreError, match="32 lower-case hexadecimal digits"):
        store.image(sample_id)


def test_a_folder_without_a_header_is_no_set(tmp_path):
    with pytest.raises(StoreError, match=r"no readable synth\.json"):
        SynthStore(tmp_path)


def test_a_set_of_an_earlier_version_is_refused(store):
    path = store.folder / "synth.json"
    path.write_text(path.read_text().replace("set 3", "set 1"))

    with pytest.raises(StoreError, match="generate them again into a new folder"):
        SynthStore(store.folder)


@pytest.mark.parametrize(
    "sampling",
    [
        "ab2",
        {"steps": None},
        {"steps": True},
        {"steps": {}},
        {"steps": 10**40},
        {"steps": float("nan")},
        {"guided": [0.3, "all"]},
        {"guided": [0.0] * 99},
        {"solver": ""},
        {"solver": "x" * 999},
    ],
)
def test_a_header_with_settings_that_are_none_is_refused(store, sampling):
    path = store.folder / "synth.json"
    value = json.loads(path.read_text())
    value["origin"]["sampling"] = sampling
    path.write_text(json.dumps(value))

    with pytest.raises(StoreError, match="is not the header"):
        SynthStore(store.folder)


@pytest.mark.parametrize(
    "text", ["{}", '{"format": "ctflow-fed synthetic set 2"}', "1"]
)
def test_a_false_header_is_refused(tmp_path, text):
    (tmp_path / "synth.json").write_text(text)

    with pytest.raises(StoreError, match="is not the header"):
        SynthStore(tmp_path)


@pytest.mark.parametrize(
    "change", [{"steps": 2}, {"guidance": 2.0}, {"plan": "autoregressive"}]
)
def test_a_folder_of_another_generator_is_refused(store, small_plan, model, change):
    other = replace(QUICK, **change)

    with pytest.raises(MismatchError, match="choose a new folder"):
        generate(small_plan, model=model, out=store.folder, workers=0, settings=other)


def test_a_folder_of_another_plan_is_refused(store, model):
    other = plan(target={"Emphysema": 1}, slices=8)

    with pytest.raises(MismatchError, match="choose a new folder"):
        generate(other, model=model, out=store.folder, workers=0, settings=QUICK)


def test_a_status_tells_whether_somebody_fills_the_set_and_how_fast(store):
    assert (store.status().runs, store.status().hourly) == (0, None)

    with store.runs.going_on(Shard(1, 4)), store.runs.going_on(Shard(3, 4)):
        began = store.status()
        later = time.time() + 1
        for record in store.records()[:3]:
            os.utime(store.sidecar(record.sample_id), (later, later))
        spoilt = store.records()[3].sample_id
        store.sidecar(spoilt).write_text("{")
        found = store.status()

    assert (began.runs, began.hourly, began.hours_left) == (2, 0.0, None)
    assert found.hourly > 3 * 60
    assert found.hours_left == pytest.approx(1 / found.hourly)
    assert store.status().runs == 0


def test_two_who_make_one_folder_at_once_make_it_whole(tmp_path, store, small_plan):
    origin, other = store.header.origin, plan(target={"Emphysema": 1}, slices=8)
    folder = tmp_path / "raced"

    def make(number: int) -> str:
        try:
            SynthStore.create(folder, (small_plan, other)[number % 2], origin)
        except MismatchError:
            return "refused"
        return SynthStore(folder).header.plan_id

    with ThreadPoolExecutor(8) as threads:
        said = Counter(threads.map(make, range(40)))

    winner = SynthStore(folder).header.plan_id
    assert said == {winner: 20, "refused": 20}
    assert Plan.load(folder / "plan.json").plan_id == winner
