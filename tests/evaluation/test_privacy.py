"""Sets that repeat scans are told from sets that do not."""

import json

import nibabel
import numpy as np
import pytest
from click.testing import CliRunner

from ctflow_fed.cli import cli
from ctflow_fed.copies import CopyIndex, picture_of
from ctflow_fed.ct.store import LatentStore
from ctflow_fed.errors import SettingsError, VolumeError
from ctflow_fed.evaluation.privacy import CopySettings, measure_copies
from ctflow_fed.evaluation.scans import scans_of
from ctflow_fed.model import PRESETS, fresh_network, save_package
from ctflow_fed.training import describe

SIDE = 32
SETTINGS = CopySettings(planted=1)


def chest(seed):
    """Return HU of a body with vessels that are one patient's own."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, SIDE)] * 3, indexing="ij")
    wide = 0.8 + 0.1 * rng.random(2)
    body = (y / wide[0]) ** 2 + (x / wide[1]) ** 2 < 1
    hu = np.where(body, -800.0, -1000.0)
    for _ in range(120):
        at = rng.uniform(-0.7, 0.7, 3)
        near = (z - at[0]) ** 2 + (y - at[1]) ** 2 + (x - at[2]) ** 2
        hu[near < rng.uniform(0.003, 0.02)] = 40
    return hu.astype(np.int16)


def write(folder, volumes):
    folder.mkdir()
    for name, hu in volumes.items():
        image = nibabel.Nifti1Image(hu, np.diag([8.0, 8.0, 8.0, 1.0]))
        nibabel.save(image, folder / f"{name}.nii.gz")
    return scans_of(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    real = {f"real-{i}": chest(i) for i in range(10)}
    grainy = np.random.default_rng(0).normal(0, 20, (SIDE,) * 3).astype(np.int16)
    copied = {f"copy-{i}": real[f"real-{i}"][::-1] + grainy for i in range(8)}
    return {
        "real": write(root / "real", real),
        "held out": write(root / "held", {f"h-{i}": chest(100 + i) for i in range(5)}),
        "new": write(root / "new", {f"new-{i}": chest(200 + i) for i in range(5)}),
        "copied": write(root / "copied", copied),
        "cache": root / "cache",
    }


def measured(folders, name, held_out="held out", prompts=None):
    figures = measure_copies(
        folders["real"],
        folders[name],
        folders[held_out] if held_out else [],
        prompts=prompts or {},
        cache=folders["cache"],
        settings=SETTINGS,
    )
    return {(figure.name, figure.part): figure for figure in figures}


def test_new_patients_pass(folders):
    found = measured(folders, "new")

    failed = {key for key, figure in found.items() if figure.verdict == "fail"}
    assert not failed
    assert found["copies", ""].value.value == 0
    assert found["planted_copies_found", "all"].value.value == 1
    assert found["prompt_replay", ""].verdict == "not measured"


def test_copies_fail(folders):
    found = measured(folders, "copied")

    assert found["copies", ""].value.value == 1
    for name in ("copies", "nearest_ratio", "authenticity"):
        assert found[name, ""].verdict == "fail"


def test_without_scans_of_others_some_patients_stand_in(folders):
    found = measured(folders, "new", held_out=None)

    assert found["false_alarms", ""].n == 2
    assert found["copies", ""].verdict == "pass"


def test_a_report_that_brings_back_its_scan_fails(folders):
    own = {f"copy-{i}": f"real-{i}" for i in range(4)}
    other = {f"copy-{i}": f"real-{i - 4}" for i in range(4, 8)}

    drawn_once = measured(folders, "copied", prompts=own)["prompt_replay", ""]
    drawn_twice = measured(folders, "copied", prompts=own | other)["prompt_replay", ""]

    assert (drawn_once.value.value, drawn_once.verdict) == (1, "fail")
    assert (drawn_twice.value.value, drawn_twice.n) == (1, 4)


def test_prompts_of_unknown_scans_are_refused(folders):
    with pytest.raises(SettingsError, match="prompts"):
        measured(folders, "copied", prompts={"copy-0": "nobody"})


def test_a_set_that_is_empty_or_cannot_be_read_is_refused(folders, tmp_path):
    with pytest.raises(SettingsError, match="none"):
        measured({**folders, "empty": []}, "empty")
    (tmp_path / "a.nii.gz").write_bytes(b"no volume")
    with pytest.raises(VolumeError, match="1 of 1"):
        measured({**folders, "broken": scans_of(tmp_path)}, "broken")


def run(*arguments):
    return CliRunner().invoke(cli, [str(each) for each in ("evaluate", *arguments)])


def test_the_command_writes_figures_that_can_be_read_again(folders, tmp_path):
    real, synth = (folders[name][0].path.parent for name in ("real", "copied"))
    table = tmp_path / "prompts.csv"
    table.write_text("synthetic,real\ncopy-0.nii.gz,real-0.nii.gz\n")

    result = run(
        *("privacy", real, synth, "--prompts", table, "--planted", 1),
        *("--out", tmp_path / "out", "--json"),
    )

    assert result.exit_code == 0, result.output
    saved = json.loads((tmp_path / "out" / "privacy.json").read_text())
    figures = {each["name"]: each["verdict"] for each in saved["figures"]}
    assert figures["copies"] == figures["prompt_replay"] == "fail"


def test_the_command_asks_weights_alone(haar_store, tmp_path):
    store = LatentStore.open(haar_store)
    package = tmp_path / "model"
    package.mkdir()
    network = fresh_network(PRESETS["nano"], seed=0)
    save_package(package, network, describe(store, steps=0, seed=0))
    stores = ("--members", haar_store, "--others", haar_store)

    result = run("privacy", "--model", package, *stores, "--out", tmp_path / "out")

    assert isinstance(result.exception, SettingsError)
    assert "20 or more patients" in str(result.exception)


def test_half_of_what_is_needed_is_refused(folders, tmp_path):
    real = folders["real"][0].path.parent

    for part in ((real,), ("--members", real), ()):
        result = run("privacy", *part, "--out", tmp_path / "out")
        assert isinstance(result.exception, SettingsError)


def test_the_command_makes_an_index_that_knows_its_scans(folders, tmp_path):
    path = tmp_path / "site.copies"

    result = run("index", folders["real"][0].path.parent, "--out", path)

    assert result.exit_code == 0, result.output
    index = CopyIndex.load(path)
    assert index.check(picture_of(folders["copied"][0].read())).is_copy
    assert not index.check(picture_of(folders["new"][0].read())).is_copy
