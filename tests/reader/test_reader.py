"""A reader of findings says what it can read, and is never unpickled."""

import json

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.errors import StoreError
from ctflow_fed.reader import Calibration, Reader
from ctflow_fed.reader.calibration import calibrated

pytest.importorskip("monai")

EMPHYSEMA = FINDINGS.index("Emphysema")
SHAPE = (16, 32, 32)


def volumes(count):
    """Noise, in which every second volume is brighter and has emphysema."""
    generator = np.random.default_rng(0)
    labels = np.zeros((count, 18), np.float32)
    labels[::2, EMPHYSEMA] = 1
    hu = (
        generator.normal(-600, 50, (count, *SHAPE))
        + 500 * labels[:, EMPHYSEMA, None, None, None]
    )
    return list(hu.astype(np.int16)), labels


@pytest.fixture(scope="module")
def trained():
    reader = Reader()
    reader.train(*volumes(12), steps=12)
    reader.calibrate(*volumes(12))
    return reader


def test_what_is_plain_to_see_is_read_and_the_rest_is_not(trained):
    assert set(trained.known) == {"Emphysema"}
    assert trained.known["Emphysema"].auroc == 1.0


def test_a_reader_is_the_same_once_it_was_saved(trained, tmp_path):
    path = tmp_path / "reader.safetensors"
    trained.save(path)

    again = Reader()
    again.load(path)

    assert again.known == trained.known
    seen, _ = volumes(2)
    assert np.array_equal(again.read(seen)[0], trained.read(seen)[0])


def test_a_scan_of_any_size_is_read(trained):
    scan = CTVolume(np.full((20, 50, 60), -600, np.int16), np.diag([5.0, 4, 4, 1]))

    assert set(trained.logits(scan)) == set(FINDINGS)


@pytest.mark.parametrize(
    "broken", ["none", "json", "format", "weights", "known", "nan"]
)
def test_what_is_no_reader_is_refused_in_a_sentence(trained, tmp_path, broken):
    path = tmp_path / "reader.safetensors"
    trained.save(path)
    weights, header = load_file(path), {"format": "ctflow-fed reader 1", "known": "{}"}
    if broken == "format":
        header["format"] = "another"
    elif broken == "known":
        header["known"] = json.dumps({"Emphysema": {"auroc": "1", "threshold": 0.0}})
    elif broken == "weights":
        weights.popitem()
    elif broken == "nan":
        weights["conv1.weight"][0] = float("nan")
    save_file(weights, path, header)
    if broken == "json":
        path.write_text("{}")
    elif broken == "none":
        path.unlink()

    with pytest.raises(StoreError, match="expected a reader of findings"):
        Reader().load(path)


def test_the_threshold_lets_a_tenth_of_real_scans_go_and_few_scans_tell_nothing():
    logits, labels = np.zeros((30, 18)), np.zeros((30, 18))
    labels[:20, 0], logits[:20, 0] = 1, np.arange(20.0) + 1
    labels[:4, 1], logits[:4, 1] = 1, 9.0
    labels[:15, 2], logits[:, 2] = 1, np.arange(30.0)

    found = calibrated(logits, labels)

    assert found == {
        FINDINGS[0]: Calibration(1.0, float(np.quantile(logits[:20, 0], 0.1)))
    }
    assert (logits[:20, 0] < found[FINDINGS[0]].threshold).mean() == 0.1
