"""README, "Your own data": two hospitals of real CT, from the command line."""

import csv
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import monai.transforms as mt
import nibabel
import numpy as np
import pytest

from ctflow_fed.augment import SynthStore, extend
from ctflow_fed.ct.store import LatentStore
from ctflow_fed.model import load_package

HOSPITALS = {
    "north": {"lung1": "lung1_001", "crlm": "crlm_1004"},
    "south": {
        "lidc": "lidc_0314_ds2/ct_binned2x2x2.nii.gz",
        "cmbcrc": "cmbcrc_msb01068",
    },
}
SLICES = {"north": [41, 134], "south": [100, 137]}

pytestmark = [pytest.mark.slow, pytest.mark.flower, pytest.mark.ray]


def _ctflow(*arguments: object) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "ctflow_fed", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


@pytest.fixture(scope="module")
def hospitals(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders as a hospital has them: studies, and a table of reports."""
    root = tmp_path_factory.mktemp("hospitals")
    with (shared / "realdata/reports/ctrate_labeled/train.csv").open() as file:
        texts = [row["report_text"] for row in csv.DictReader(file)][:4]
    for hospital, studies in HOSPITALS.items():
        for study, source in studies.items():
            _place(shared / "realdata/volumes" / source, root / hospital, study)
        with (root / f"{hospital}.csv").open("w", newline="") as file:
            rows = [(study, texts.pop()) for study in studies]
            csv.writer(file).writerows([("study", "report"), *rows])
    return root


def _place(source: Path, hospital: Path, study: str) -> None:
    hospital.mkdir(exist_ok=True)
    if source.is_file():
        (hospital / f"{study}.nii.gz").symlink_to(source)
        return
    with tarfile.open(source / "dicom.tar.xz") as archive:
        archive.extractall(hospital / study, filter="data")


def test_two_hospitals_of_real_ct_go_from_scans_to_synthetic_volumes(hospitals: Path):
    sites = hospitals / "sites"
    for name, slices in SLICES.items():
        _ctflow(
            *("intake", hospitals / name, "--reports", hospitals / f"{name}.csv"),
            *("--out", sites / name, "--image-size", 64),
        )
        records = LatentStore.open(sites / name).records
        assert sorted(record.slices for record in records) == slices

    job = hospitals / "fed"
    _ctflow(
        *("federation", "run", "--local", sites / "north", sites / "south"),
        *("--out", job, "--rounds", 2, "--steps", 3, "--batch-clips", 2),
        *("--preset", "nano"),
    )
    lines = (job / "rounds.jsonl").read_text().splitlines()
    rounds = [json.loads(line) for line in lines]
    assert [played["slices"] for played in rounds] == 2 * [
        {"north": 41 + 134, "south": 100 + 137}
    ]
    assert rounds[1]["loss_after"] < rounds[0]["loss_before"]
    assert load_package(job / "model").provenance.sites == 2

    drawn = hospitals / "drawn.nii.gz"
    _ctflow(
        *("sample", job / "model", "--report", "Left pleural effusion."),
        *("--slices", 48, "--steps", 2, "--out", drawn),
    )
    image = nibabel.load(drawn)
    assert image.shape == (64, 64, 48)
    assert image.get_data_dtype() == np.int16

    plan, synthetic = hospitals / "plan.json", hospitals / "synthetic"
    _ctflow(
        *("augment", "plan", "--target", "Pleural effusion=2"),
        *("--slices", 20, "--out", plan),
    )
    _ctflow(
        *("augment", "run", plan, "--model", job / "model", "--out", synthetic),
        *("--steps", 2),
    )
    items = extend([], SynthStore(synthetic))
    assert len(items) == 2
    load = mt.LoadImage(image_only=True, reader="NibabelReader")
    assert {tuple(load(item["image"]).shape) for item in items} == {(64, 64, 20)}
