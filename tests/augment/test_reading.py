"""The gate's reader: trained on real scans, and asked for what it can read."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from ctflow_fed.augment import GenerateSettings, train_reader
from ctflow_fed.augment.gate import Gate
from ctflow_fed.cli.augment import command
from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.ct.nifti import write_nifti
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.errors import MismatchError, SettingsError
from ctflow_fed.reader import Calibration, Reader

pytest.importorskip("monai")


def scan(bright=False, seed=0):
    hu = np.random.default_rng(seed).normal(-700 + 500 * bright, 100, (16, 24, 24))
    hu[:, :, :4] = -950  # air around
    affine = np.array([[0, 0, -9, 0], [0, -9, 0, 0], [9, 0, 0, 0], [0, 0, 0, 1.0]])
    return CTVolume(hu.astype(np.int16), affine)


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    """Eighty patients, of whom every second has a bright chest: "consolidation"."""
    folder, found = tmp_path_factory.mktemp("real"), []
    for number in range(80):
        bright = number % 2 == 0
        write_nifti(scan(bright, number), folder / f"{number}.nii.gz")
        label = [int(bright and name == "Consolidation") for name in FINDINGS]
        found.append({"image": str(folder / f"{number}.nii.gz"), "label": label})
    return found


@pytest.fixture
def known(tmp_path):
    """A reader of random weights that is said to read two findings."""
    reader, path = Reader(), tmp_path / "known.safetensors"
    logits = reader.logits(scan())
    reader.known = {
        "Emphysema": Calibration(0.9, logits["Emphysema"] - 1),
        "Consolidation": Calibration(0.9, logits["Consolidation"] + 1),
    }
    reader.save(path)
    return path


@pytest.mark.slow
def test_a_reader_of_real_scans_tells_what_it_can_read(items, tmp_path):
    (tmp_path / "list.json").write_text(json.dumps({"training": items}))
    arguments = [
        str(tmp_path / "list.json"),
        "--out",
        str(tmp_path / "r"),
        "--steps",
        "8",
    ]

    result = CliRunner().invoke(command, ["reader", *arguments], catch_exceptions=False)

    assert "1 of 18 findings can be read" in result.output
    assert "Consolidation" in result.output
    reader = Reader()
    reader.load(tmp_path / "r")
    assert set(reader.known) == {"Consolidation"}


def test_a_volume_in_which_the_finding_is_not_read_is_refused(known):
    gate = Gate(GenerateSettings(gate="any", reader=known))

    seen = gate.judge(scan(), 0, ["Emphysema"])
    unseen = gate.judge(scan(), 1, ["Emphysema", "Consolidation"])
    other = gate.judge(scan(), 2, ["Lung nodule"])

    (numbers,) = (each.numbers for each in seen.candidates)
    assert numbers["sureness"] == pytest.approx(1, abs=1e-3)
    assert {"reads Emphysema", "reads Consolidation"} < set(numbers)
    assert "read as surely" not in seen.refusal
    assert "read as surely" in unseen.refusal
    assert "sureness" not in other.candidates[0].numbers


def test_of_two_that_pass_the_surer_is_kept(known):
    gate = Gate(GenerateSettings(gate="any", reader=known))
    one, other = (gate.judge(scan(seed=n), n, ["Emphysema"]) for n in (0, 1))
    assert (one.refusal, other.refusal) == ("", "")

    best = one.or_better(other)

    sureness = {d.seed: d.candidates[0].numbers["sureness"] for d in (one, other)}
    assert best.seed == max(sureness, key=sureness.__getitem__)


def test_synthetic_scans_teach_no_reader(items, tmp_path):
    with pytest.raises(MismatchError, match="real scans alone"):
        train_reader([{**items[0], "synthetic": True}, *items[1:]], tmp_path / "r")

    write_nifti(scan(), tmp_path / "s.nii.gz", description="SYNTHETIC")
    with pytest.raises(MismatchError, match="real scans alone"):
        train_reader([*items, {**items[0], "image": tmp_path / "s.nii.gz"}], tmp_path)


def test_a_few_patients_do_not_tell_what_can_be_read(items, tmp_path):
    few = [{**item, "patient": str(n // 16)} for n, item in enumerate(items)]

    with pytest.raises(SettingsError, match="8 patients or more, got 5"):
        train_reader(few, tmp_path / "r")
