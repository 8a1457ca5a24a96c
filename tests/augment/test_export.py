"""A set as DICOM series, and the card that is handed on with it."""

import json

import numpy as np
import pydicom
import pytest
import SimpleITK

from ctflow_fed.augment import (
    GenerateSettings,
    SynthStore,
    generate,
    plan,
    write_dicom,
    write_latents,
)
from ctflow_fed.ct.codec import HaarCodec
from ctflow_fed.ct.nifti import read_nifti
from ctflow_fed.ct.report import HashingReportEncoder
from ctflow_fed.ct.store import LatentStore
from ctflow_fed.ct.synthetic import is_marked_synthetic
from ctflow_fed.errors import MismatchError, StoreError


@pytest.fixture(scope="module")
def store(tmp_path_factory, model):
    """Three volumes, of which one has a given report."""
    return generate(
        plan(target={"Emphysema": 2}, reports=["A secret report."], slices=8),
        model=model,
        out=tmp_path_factory.mktemp("set") / "synthetic",
        workers=0,
        settings=GenerateSettings(steps=1, solver="euler", gate="any", candidates=1),
    )


@pytest.fixture
def kept(store):
    """The ids of those that the gate let pass, or the test has nothing to show."""
    ids = [record.sample_id for record in store.records()]
    assert ids
    return ids


def bytes_of(folder):
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file()
    }


def test_a_series_has_the_voxels_and_the_place_of_the_volume(store, kept, tmp_path):
    assert write_dicom(store, tmp_path / "series") == len(kept)

    for sample_id in kept:
        reader = SimpleITK.ImageSeriesReader()
        folder = str(tmp_path / "series" / sample_id)
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(folder))
        image = reader.Execute()
        volume = read_nifti(store.image(sample_id))
        assert np.array_equal(SimpleITK.GetArrayFromImage(image), volume.hu)
        assert image.GetSpacing() == pytest.approx(volume.spacing[::-1])


def test_a_series_is_named_after_its_sample(store, kept, tmp_path):
    write_dicom(store, tmp_path / "series")

    image = pydicom.dcmread(tmp_path / "series" / kept[0] / "00001.dcm")
    sidecar = json.loads((tmp_path / "series" / f"{kept[0]}.json").read_text())
    assert image.PatientID == f"SYN-{kept[0]}"
    assert image.SyntheticData == "YES"
    assert store.header.origin.model[:16] in image.DerivationDescription
    assert sidecar["sample_id"] == kept[0]


def test_the_same_call_goes_on_and_repeats_to_the_byte(store, kept, tmp_path):
    write_dicom(store, tmp_path / "one")
    write_dicom(store, tmp_path / "two")
    whole = bytes_of(tmp_path / "two")
    (tmp_path / "two" / f"{kept[0]}.json").unlink()

    assert write_dicom(store, tmp_path / "two") == 1
    assert write_dicom(store, tmp_path / "two") == 0
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two") == whole


def test_a_damaged_volume_is_not_written(store, kept, tmp_path):
    copy = tmp_path / "copy"
    for name, content in bytes_of(store.folder).items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(content)
    (copy / "volumes" / f"{kept[0]}.nii.gz").write_bytes(b"cut")

    with pytest.raises(StoreError, match="does not fit its sidecar"):
        write_dicom(SynthStore(copy), tmp_path / "series")


def test_latents_are_those_that_an_intake_would_make(store, kept, tmp_path):
    assert write_latents(store, tmp_path / "latents") == len(kept)
    assert write_latents(store, tmp_path / "latents") == 0

    latents = LatentStore.open(tmp_path / "latents")
    assert {record.study_id for record in latents.records} == set(kept)
    for record in latents.records:
        volume = read_nifti(store.image(record.study_id))
        decoded = HaarCodec().decode(latents.slices(record.study_id, 0, record.slices))
        assert np.abs(decoded.numpy() - volume.hu).max() < 3
        assert record.labels == store.read(record.study_id).labels
        assert record.flags == ("synthetic",)
        report = store.report(store.read(record.study_id))
        expected = HashingReportEncoder().encode([report]).tokens[0]
        got = latents.tokens(record.study_id)
        assert np.allclose(got, expected, atol=1e-3)


def test_latents_need_the_codec_of_the_model(store, tmp_path, monkeypatch):
    other = HaarCodec()
    other.codec_id = "f" * 64
    monkeypatch.setattr("ctflow_fed.ct.codec.codec_named", lambda _: other)
    with pytest.raises(MismatchError, match="another codec than the one given"):
        write_latents(store, tmp_path / "latents", codec="another")
    assert not (tmp_path / "latents").exists()


def test_an_empty_set_has_no_latents(model, tmp_path):
    empty = generate(
        plan(reports=["No chest."], slices=8),
        model=model,
        out=tmp_path / "set",
        workers=0,
        settings=GenerateSettings(steps=1, solver="euler", gate="chest"),
    )
    assert not empty.ids()

    with pytest.raises(StoreError, match="no volume yet"):
        write_latents(empty, tmp_path / "latents")


def test_the_volumes_of_a_set_are_known_as_synthetic(store, kept):
    assert all(is_marked_synthetic(store.image(sample_id)) for sample_id in kept)


def test_the_card_says_what_the_set_is_and_quotes_no_given_report(store, kept):
    card = (store.folder / "card.md").read_text()

    assert f"{len(kept)} synthetic chest CTs of 3 planned" in card
    assert store.header.origin.model in card
    assert "none was promised" in card
    assert "Not for diagnostic use" in card
    assert "secret" not in card
    for name, count in store.status().positives.items():
        assert (f"| {name} | {count} |" in card) == (count > 0)


def test_the_sidecar_has_the_provenance_of_its_volume(store, kept):
    value = json.loads(store.sidecar(kept[0]).read_text())

    assert value["synthetic"] is True
    assert value["verdict"] == "passed"
    assert value["voxels"] == "int16 Hounsfield units, unscaled"
    assert {
        "code_version",
        "created",
        "labels",
        "report_sha256",
        "report_source",
        "seed",
        "sha256",
        "shape",
        "spacing",
        "use",
    } < set(value)
    assert {"model", "rounds", "sites", "sampling", "epsilon", "delta"} < set(
        value["origin"]
    )
