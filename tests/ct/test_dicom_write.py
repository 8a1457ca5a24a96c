"""A written series says that it is synthetic, and repeats to the byte."""

import json
from importlib.resources import files
from uuid import RFC_4122, UUID

import numpy as np
import pydicom
import pytest
import SimpleITK

from ctflow_fed.ct.dicom import SeriesTags, read_series, write_series
from ctflow_fed.ct.nifti import write_nifti
from ctflow_fed.ct.volume import AIR, CTVolume
from ctflow_fed.errors import SettingsError


def chest_like():
    """A small volume with air, every slice different, in canonical order."""
    noise = np.random.default_rng(7).integers(AIR, 3000, (6, 24, 20))
    affine = np.array(
        [[0, 0, -0.7, 81.25], [0, -0.9, 0, 60.5], [2.5, 0, 0, -310.125], [0, 0, 0, 1.0]]
    )
    return CTVolume(noise.astype(np.int16), affine)


@pytest.fixture
def series(tmp_path):
    folder = tmp_path / "series"
    write_series(chest_like(), folder, seed=3, tags=SeriesTags("SYN-7"))
    return folder


def test_simpleitk_reads_the_same_voxels_in_the_same_places(series):
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series)))
    image = reader.Execute()

    volume = chest_like()
    assert np.array_equal(SimpleITK.GetArrayFromImage(image), volume.hu)
    assert image.GetSpacing() == pytest.approx(volume.spacing[::-1], abs=1e-9)
    assert image.GetOrigin() == pytest.approx(
        volume.affine[:3, 3] * (-1, -1, 1), abs=1e-9
    )
    assert image.GetDirection() == pytest.approx(np.eye(3).ravel(), abs=1e-9)


def test_every_hu_of_int16_from_air_upwards_survives(tmp_path):
    extremes = CTVolume(
        np.linspace(AIR, 32767, 2 * 30 * 30).astype(np.int16).reshape(2, 30, 30),
        chest_like().affine,
    )
    write_series(extremes, tmp_path / "series", seed=1, tags=SeriesTags("SYN-1"))

    assert np.array_equal(read_series(tmp_path / "series").hu, extremes.hu)


def test_a_write_that_fails_leaves_nothing_behind(tmp_path):
    (tmp_path / "series").write_text("a file where the folder should be")

    with pytest.raises(NotADirectoryError):
        write_series(
            chest_like(), tmp_path / "series", seed=1, tags=SeriesTags("SYN-1")
        )

    assert [path.name for path in tmp_path.iterdir()] == ["series"]


def bytes_of(folder):
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def test_the_same_seed_writes_the_same_bytes_and_another_other_uids(tmp_path):
    tags = SeriesTags("SYN-1")
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_series(chest_like(), tmp_path / name, seed=seed, tags=tags)

    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")
    assert bytes_of(tmp_path / "a") != bytes_of(tmp_path / "c")


def test_the_headers_say_that_the_series_is_synthetic(tmp_path):
    tags = SeriesTags("SYN-9", sex="F", age=61, scanner="Alpha", kernel="soft")
    write_series(chest_like(), tmp_path / "series", seed=1, tags=tags)

    first = pydicom.dcmread(tmp_path / "series" / "00001.dcm")
    assert first.SyntheticData == "YES"
    assert list(first.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
    assert first.ContentQualification == "RESEARCH"
    assert first.PatientIdentityRemoved == "YES"
    assert (first.PatientID, first.PatientSex, first.PatientAge) == (
        "SYN-9",
        "F",
        "061Y",
    )
    purpose = first.ContributingEquipmentSequence[0].PurposeOfReferenceCodeSequence[0]
    assert purpose.CodeValue == "109100"
    uids = {
        keyword: {
            str(pydicom.dcmread(p)[keyword].value)
            for p in (tmp_path / "series").iterdir()
        }
        for keyword in ("SOPInstanceUID", "SeriesInstanceUID")
    }
    assert [len(values) for values in uids.values()] == [6, 1]


def lacking(dataset, attributes):
    """Name the attributes of types 1 and 2 that a data set lacks, at any depth."""
    for each in attributes:
        holders = [dataset]
        for sequence in each["path"]:
            holders = [item for one in holders for item in one.get(sequence, [])]
        for holder in holders:
            there = each["keyword"] in holder
            if each["type"] == "1" and not (there and holder[each["keyword"]].value):
                there = there and holder[each["keyword"]].value == 0
            if each["type"] in ("1", "2") and not there:
                yield ".".join([*each["path"], each["keyword"]])


def test_it_has_all_that_the_standard_asks_of_a_ct_image(series):
    """No attribute of type 1 or 2 is lacking, by the tables of PS3.3 in highdicom."""
    tables = files("highdicom") / "_standard"
    modules = json.loads((tables / "iod_module_map.json").read_text())["ct-image"]
    attributes = json.loads((tables / "module_attribute_map.json").read_text())
    image = pydicom.dcmread(series / "00001.dcm")

    mandatory = [each["key"] for each in modules if each["usage"] == "M"]
    missing = {key: list(lacking(image, attributes[key])) for key in mandatory}

    assert {"ct-image", "image-plane", "general-series", "sop-common"} < set(mandatory)
    assert {key: names for key, names in missing.items() if names} == {}
    del image.KVP, image.ContributingEquipmentSequence[0].Manufacturer
    image.PixelSpacing = None
    assert list(lacking(image, attributes["ct-image"])) == ["KVP"]
    assert list(lacking(image, attributes["image-plane"])) == ["PixelSpacing"]
    assert list(lacking(image, attributes["sop-common"])) == [
        "ContributingEquipmentSequence.Manufacturer"
    ]


def test_every_uid_is_an_own_one(series):
    image = pydicom.dcmread(series / "00001.dcm")
    uids = (
        image.StudyInstanceUID,
        image.SeriesInstanceUID,
        image.FrameOfReferenceUID,
        image.SOPInstanceUID,
    )

    assert len(set(uids)) == 4
    for uid in uids:
        assert uid.is_valid
        assert uid.startswith("2.25.")
        assert UUID(int=int(uid.removeprefix("2.25."))).variant == RFC_4122


@pytest.mark.slow
def test_monai_reads_the_same_voxels_in_the_same_places(series, tmp_path):
    transforms = pytest.importorskip("monai.transforms")
    write_nifti(chest_like(), tmp_path / "same.nii.gz")
    turn = transforms.Orientation("RAS", labels=None)

    images = [
        turn(transforms.LoadImage(reader=name, ensure_channel_first=True)(path))
        for name, path in (
            ("PydicomReader", series),
            (None, tmp_path / "same.nii.gz"),
        )
    ]

    assert np.array_equal(*(np.asarray(image) for image in images))
    affines = [image.affine.numpy() for image in images]
    assert np.allclose(*affines, atol=1e-4)


def test_a_series_is_not_written_into_a_folder_with_files(series):
    with pytest.raises(SettingsError, match="new or empty"):
        write_series(chest_like(), series, seed=3, tags=SeriesTags("SYN-7"))


@pytest.mark.parametrize(
    "values",
    [
        {"patient_id": "4711"},
        {"patient_id": "SYN-../x"},
        {"patient_id": "SYN-1", "age": 400},
        {"patient_id": "SYN-1", "kernel": "a\\b"},
        {"patient_id": "SYN-1", "scanner": "x" * 65},
    ],
)
def test_tags_that_do_not_fit_are_refused(values):
    with pytest.raises(SettingsError):
        SeriesTags(**values)
