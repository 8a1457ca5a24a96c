"""What does not look like a CT does not count, and says why."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ctflow_fed.augment import (
    GenerateSettings,
    SyntheticCTDataset,
    SynthStore,
    extend,
    generate,
    plan,
)
from ctflow_fed.augment.gate import Gate, candidate_seed
from ctflow_fed.augment.worker import load_sampler
from ctflow_fed.copies import CopyIndex, picture_of
from ctflow_fed.ct.continuity import continuity_of
from ctflow_fed.ct.nifti import read_nifti
from ctflow_fed.ct.phantom import Scanner, draw
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.errors import IncompleteError, SettingsError, StoreError

QUICK = {"steps": 1, "solver": "euler"}


@pytest.fixture(scope="module")
def chest():
    """A phantom: 48 slices over a whole chest."""
    return draw(1, scanner=Scanner().resized(48, 64)).volume


def judged(volume, gate="chest"):
    (candidate,) = Gate(GenerateSettings(gate=gate)).judge(volume, 7).candidates
    return candidate


def changed(volume, change):
    hu = volume.hu.copy()
    change(hu)
    return CTVolume(hu, volume.affine)


def test_a_chest_passes_with_its_numbers(chest):
    candidate = judged(chest)

    assert candidate.refusal == ""
    assert candidate.seed == 7
    assert {"lung_mm", "body_share", "jump", "freeze", "grain"} < set(candidate.numbers)


def flat(hu):
    hu[:] = -900


def seam(hu):
    hu[24:] = np.roll(hu[24:], 20, axis=1)


def frozen(hu):
    hu[20] = hu[19]


def noisier(hu):
    noise = np.random.default_rng(0).normal(0, 1, hu.shape)
    hu += (noise * np.arange(48)[:, None, None] * 4).astype(np.int16)


def without_air(hu):
    hu[hu < -500] = 0


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (flat, "one HU"),
        (seam, "no seam"),
        (frozen, "no repeated slice"),
        (noisier, "even noise"),
        (without_air, "no air"),
    ],
)
def test_what_is_no_sound_ct_is_refused_with_a_reason(chest, change, word):
    assert word in judged(changed(chest, change), gate="any").refusal


def test_what_shows_no_lungs_is_no_chest_but_may_be_a_ct(chest):
    bones = CTVolume(chest.hu[:6], chest.affine)

    assert "lungs" in judged(bones).refusal
    assert "lungs" not in judged(bones, gate="any").refusal


@pytest.fixture(scope="module")
def scans():
    """Volumes of nine patients."""
    small = Scanner().resized(32, 32)
    return [draw(seed, scanner=small).volume for seed in range(9)]


@pytest.fixture
def index(scans, tmp_path):
    """The private index of the first eight."""
    pictures = torch.stack([picture_of(scan) for scan in scans[:8]])
    path = tmp_path / "index.safetensors"
    CopyIndex.build(pictures, [str(number) for number in range(8)]).save(path)
    return path


def test_a_copy_of_a_sites_scan_is_refused_and_another_patient_is_not(scans, index):
    gate = Gate(GenerateSettings(gate="any", copies=index))
    mirrored = CTVolume(scans[3].hu[:, :, ::-1].copy(), scans[3].affine)

    copy, stranger = (
        gate.judge(each, 0).candidates[0] for each in (mirrored, scans[8])
    )

    assert copy.refusal.startswith("expected no copy of a scan")
    assert "copy" not in stranger.refusal
    assert stranger.numbers["likeness"] < copy.numbers["likeness"]


def test_another_index_makes_other_samples(asked, model, index):
    ids = [
        load_sampler(model, GenerateSettings(**QUICK, **chosen))[1].sample_id(
            asked.requests[0]
        )
        for chosen in ({}, {"gate": "any"}, {"gate": "any", "copies": index})
    ]

    assert len(set(ids)) == 3


def test_an_index_that_is_none_is_refused_before_anything_is_drawn(
    asked, model, tmp_path
):
    settings = GenerateSettings(**QUICK, gate="any", copies=tmp_path / "none")

    with pytest.raises(StoreError, match="index of a site's scans"):
        generate(asked, model=model, out=tmp_path / "set", workers=0, settings=settings)
    assert not (tmp_path / "set").exists()


def test_the_passing_candidate_is_kept_and_then_the_smoothest(chest):
    gate = Gate(GenerateSettings(gate="any"))
    sound = gate.judge(chest, 1)
    torn, worse = (
        gate.judge(changed(chest, change), seed)
        for seed, change in ((2, seam), (3, frozen))
    )

    for first, second in ((sound, torn), (torn, sound)):
        best = first.or_better(second)
        assert best.seed == 1
        assert [each.seed for each in best.candidates] == [first.seed, second.seed]
    assert torn.or_better(worse).or_better(sound).refusal == ""


def test_a_volume_of_one_slice_has_no_neighbours(chest):
    assert continuity_of(CTVolume(chest.hu[:1], chest.affine)).jump == 1


@pytest.fixture
def asked():
    return plan(target={"Emphysema": 2}, slices=8)


def test_refused_volumes_lie_apart_are_counted_and_not_drawn_again(
    asked, model, tmp_path
):
    settings = GenerateSettings(**QUICK, gate="chest", candidates=2)
    arguments = {"model": model, "out": tmp_path / "set", "workers": 0}

    store = generate(asked, **arguments, settings=settings)
    before = {p: p.stat().st_mtime_ns for p in store.folder.glob("refused/*")}
    again = generate(asked, **arguments, settings=settings)

    status = again.status()
    assert (status.planned, status.done, status.refused, status.failed) == (2, 0, 2, 0)
    assert before == {p: p.stat().st_mtime_ns for p in store.folder.glob("refused/*")}
    assert len(before) == 4
    assert extend([], store) == []


def test_the_sidecar_has_every_candidate_with_its_seed(asked, model, tmp_path):
    store = generate(
        asked,
        model=model,
        out=tmp_path / "set",
        workers=0,
        settings=GenerateSettings(**QUICK, gate="chest", candidates=3),
    )

    (record, _) = store.refused.records()
    value = json.loads(store.refused.sidecar(record.sample_id).read_text())
    assert value["verdict"] == "refused"
    assert record.refusal
    seeds = [each.seed for each in record.candidates]
    (request,) = (r for r in asked.requests if r.seed == seeds[0])
    assert seeds == [candidate_seed(request.seed, number) for number in range(3)]
    assert record.seed in seeds


def test_the_kept_candidate_is_what_its_seed_draws(asked, model, tmp_path):
    stores = [
        generate(
            asked,
            model=model,
            out=tmp_path / name,
            workers=0,
            settings=GenerateSettings(**QUICK, gate="any", candidates=count),
        )
        for name, count in (("one", 1), ("two", 2))
    ]

    volumes = [
        {
            record.seed: read_nifti(part.image(record.sample_id)).hu
            for part in (store, store.refused)
            for record in part.records()
        }
        for store in stores
    ]
    for seed in set(volumes[0]) & set(volumes[1]):
        assert np.array_equal(volumes[0][seed], volumes[1][seed])
    assert len(volumes[0]) == len(volumes[1]) == 2


def test_without_a_gate_nothing_is_judged(asked, model, tmp_path):
    store = generate(
        asked,
        model=model,
        out=tmp_path / "set",
        workers=0,
        settings=GenerateSettings(**QUICK),
    )

    record = store.records()[0]
    value = json.loads(store.sidecar(record.sample_id).read_text())
    assert (value["verdict"], value["candidates"]) == ("not checked", [])


def test_a_dataset_says_that_the_gate_refused(asked, model, tmp_path):
    settings = GenerateSettings(**QUICK, gate="chest")
    dataset = SyntheticCTDataset(
        asked, model=model, out=tmp_path / "set", settings=settings
    )

    for _ in range(2):
        with pytest.raises(IncompleteError, match="gate refused a volume: expected"):
            dataset[0]


@pytest.mark.parametrize(
    "values",
    [
        {"gate": "strict"},
        {"gate": "any", "candidates": 0},
        {"gate": "any", "candidates": 65},
        {"candidates": 2},
        {"copies": Path("index")},
        {"reader": Path("reader")},
    ],
)
def test_settings_of_a_gate_that_make_no_sense_are_refused(values):
    with pytest.raises(SettingsError, match=r"gate|drawn for a request"):
        GenerateSettings(**values)


@pytest.mark.parametrize(
    "candidates",
    [None, [{"seed": 1}], [{"seed": 1, "numbers": {"a": "b"}, "refusal": ""}], ["x"]],
)
def test_a_sidecar_with_broken_candidates_is_damaged(
    asked, model, tmp_path, candidates
):
    store = generate(
        asked,
        model=model,
        out=tmp_path / "set",
        workers=0,
        settings=GenerateSettings(**QUICK),
    )
    sample_id = store.records()[0].sample_id
    sidecar = store.sidecar(sample_id)
    value = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps({**value, "candidates": candidates}))

    assert sample_id not in SynthStore(store.folder)
