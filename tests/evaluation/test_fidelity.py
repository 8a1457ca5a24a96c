"""Fidelity of whole folders: sets whose truth is known come out in the right order."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy.stats import wasserstein_distance as scipy_distance

from ctflow_fed.cli import cli
from ctflow_fed.ct.codec import HaarCodec
from ctflow_fed.ct.nifti import read_nifti, write_nifti
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.errors import SettingsError, VolumeError
from ctflow_fed.evaluation.diversity import alikeness, mean_alikeness
from ctflow_fed.evaluation.features import FeatureCache
from ctflow_fed.evaluation.fidelity import FidelitySettings, measure_fidelity
from ctflow_fed.evaluation.hounsfield import histogram_of, wasserstein_distance
from ctflow_fed.evaluation.measuring import Lens, measure_scans
from ctflow_fed.evaluation.scans import read_patients, scans_of

AFFINE = np.diag([6.0, -6.0, -6.0, 1.0])[[2, 1, 0, 3]]
COUNT = 12


def chest(seed: int, *, brighter: int = 0, noise: float = 20.0) -> CTVolume:
    """A body with two lungs, of another size, place and density for every patient."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in (16, 32, 32)), indexing="ij")
    wide, deep, at = rng.uniform(0.7, 0.95), rng.uniform(0.5, 0.75), rng.normal(0, 0.05)
    hu = np.full(z.shape, -1000.0)
    body = ((x - at) / wide) ** 2 + (y / deep) ** 2 < 1
    hu[body] = rng.normal(40, 10)
    for side in (-0.4, 0.4):
        lung = ((x - at - side) / 0.3) ** 2 + (y / 0.4) ** 2 + (z / 0.9) ** 2 < 1
        hu[lung] = rng.normal(-800, 30)
    spine = x**2 + (y - 0.45) ** 2 < 0.01
    hu[body & spine] = 500
    hu = hu + rng.normal(0, noise, hu.shape) + brighter * body
    return CTVolume(hu.round().astype(np.int16), AFFINE)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real volumes, and sets that differ from them in one known way each."""
    root = tmp_path_factory.mktemp("sets")
    sets = {
        "real": [chest(n) for n in range(COUNT)],
        "alike": [chest(100 + n) for n in range(COUNT)],
        "brighter": [chest(100 + n, brighter=60) for n in range(COUNT)],
        "noisier": [chest(100 + n, noise=80) for n in range(COUNT)],
        "one": [chest(100, noise=20 + n / 100) for n in range(COUNT)],
    }
    for name, volumes in sets.items():
        for number, volume in enumerate(volumes):
            write_nifti(volume, root / name / f"{number:02d}.nii.gz")
    return root


@pytest.fixture(scope="module")
def measured(folders: Path) -> dict[str, dict[tuple[str, str], object]]:
    """The figures of each set against the real one."""
    return {
        name: {(f.name, f.part): f for f in _fidelity(folders, name).figures}
        for name in ("alike", "brighter", "noisier", "one")
    }


def _fidelity(folders: Path, name: str):
    return measure_fidelity(
        scans_of(folders / "real"),
        scans_of(folders / name),
        lens=Lens(Lens.embedded().slices, Lens.embedded().volumes, count=4),
        codec=HaarCodec(),
        cache=folders / "cache",
        settings=FidelitySettings(splits=10),
    )


def test_a_set_of_the_same_distribution_sits_at_the_floor(measured):
    figures = measured["alike"].values()

    passed = [figure for figure in figures if figure.verdict == "pass"]
    assert len(passed) >= 0.9 * len(figures)
    assert measured["alike"]["fd_3d", "lung"].verdict == "pass"


def test_a_shift_and_noise_are_ranked_above_the_floor(measured):
    for name in ("fd_3d", "kid", "mmd_rbf"):
        alike, worse = (
            measured[world][name, "mediastinal"] for world in ("alike", "brighter")
        )
        assert worse.value.low > alike.value.value
        assert worse.verdict == "fail"
    noisy = measured["noisier"]["fd_2.5d", "lung"]
    assert noisy.value.value > noisy.floor.high
    assert noisy.verdict == "fail"


def test_histograms_say_in_which_tissue_and_by_how_many_hu(measured):
    soft = measured["brighter"]["hu_distance", "soft"]
    lung = measured["alike"]["hu_distance", "lung"]

    assert soft.unit == "HU"
    assert soft.value.value > 10 > soft.floor.high
    assert lung.verdict == "pass"


def test_a_generator_of_one_patient_lacks_variety(measured):
    one = measured["one"]

    assert one["vendi", "lung"].verdict == "fail"
    assert one["vendi", "lung"].value.value < one["vendi", "lung"].floor.low
    assert one["ms_ssim_pairs", "lung"].verdict == "fail"
    assert one["recall", "lung"].value.value < 0.3 < one["recall", "lung"].floor.value


def test_the_codec_that_loses_nothing_has_its_ceiling_at_the_floor(measured):
    figure = measured["alike"]["fd_3d", "lung"]

    assert figure.ceiling.value == pytest.approx(figure.floor.value, rel=1e-3)


def test_every_figure_says_its_n_and_how_it_was_made(measured):
    for figure in measured["noisier"].values():
        assert figure.method
        assert figure.convention
        assert figure.n == COUNT // 2 or figure.verdict == "not measured"


def test_copies_among_real_patients_are_refused(folders: Path, tmp_path: Path):
    for number in range(4):
        write_nifti(chest(number // 2), tmp_path / f"{number}.nii.gz")

    with pytest.raises(SettingsError, match="equal to the last byte"):
        measure_fidelity(
            scans_of(tmp_path),
            scans_of(folders / "alike"),
            lens=Lens.embedded(),
            codec=HaarCodec(),
            cache=tmp_path / "cache",
            settings=FidelitySettings(splits=10),
        )


def test_files_that_cannot_be_read_are_counted_and_not_named(tmp_path: Path):
    write_nifti(chest(0), tmp_path / "good.nii.gz")
    (tmp_path / "doe_john.nii.gz").write_bytes(b"no volume")

    with pytest.raises(VolumeError, match="got 1 of 2 files") as caught:
        measure_scans(
            scans_of(tmp_path), Lens.embedded(), FeatureCache(tmp_path / "cache")
        )
    assert "doe" not in str(caught.value)


def test_a_table_says_which_files_are_of_one_patient(tmp_path: Path):
    for name in ("a_1", "a_2", "b_1"):
        (tmp_path / f"{name}.nii.gz").write_bytes(name.encode())
    table = tmp_path / "patients.csv"
    table.write_text("study,patient\na_1,a\na_2.nii.gz,a\n")

    owners = [scan.patient for scan in scans_of(tmp_path, read_patients(table))]
    assert owners[0] == owners[1] != owners[2]


def test_the_wasserstein_distance_is_scipy_s():
    one, other = (chest(n, noise=40).hu for n in (0, 1))
    histograms = [histogram_of(hu).numpy() for hu in (one, other)]
    place = np.arange(-1000, 1000, 5.0)

    theirs = scipy_distance(place, place, *histograms)
    found = wasserstein_distance(*histograms, "all")
    assert found == pytest.approx(theirs, abs=1e-6)
    assert found > 0


def test_a_volume_is_like_itself_and_less_like_another():
    images = torch.rand(5, 32, 32, 32, generator=torch.Generator().manual_seed(0))

    same = alikeness(images[:1].expand(5, -1, -1, -1).half())
    assert mean_alikeness(same) == pytest.approx(1, abs=1e-3)
    assert mean_alikeness(alikeness(images.half())) < 0.5


def test_the_command_writes_json_and_a_table_and_repeats(folders: Path, tmp_path: Path):
    words = ["evaluate", "fidelity", str(folders / "real"), str(folders / "noisier")]
    words += ["--splits", "10", "--out", str(tmp_path)]

    first = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert first.exit_code == 0
    assert "fd_3d" in first.stdout
    assert "not measured" in first.stdout.splitlines()[-1]
    found = json.loads((tmp_path / "fidelity.json").read_text())
    assert found["kind"] == "fidelity"
    assert {"name", "value", "floor", "ceiling", "verdict", "convention", "n"} <= set(
        found["figures"][0]
    )
    assert not any(each["pretrained"] for each in found["made"]["extractors"])

    kept = sorted((tmp_path / "features").iterdir())
    again = CliRunner().invoke(cli, [*words, "--json"], catch_exceptions=False)
    assert json.loads(again.stdout) == found
    assert sorted((tmp_path / "features").iterdir()) == kept


@pytest.mark.slow
def test_interleaved_slices_of_real_ct_sit_at_the_floor(shared: Path, tmp_path: Path):
    names = ("lidc_0314_ds2/ct_binned2x2x2", "ibsi_lung_phantom/ct")
    names += ("totalseg_example_ct_3mm/ct", "totalseg_example_ct_sm/ct")
    for number, name in enumerate(names):
        volume = read_nifti(shared / f"realdata/volumes/{name}.nii.gz")
        for start, part in enumerate(("even", "odd")):
            affine = volume.affine.copy()
            affine[:3, 0] *= 2
            half = CTVolume(volume.hu[start::2], affine)
            write_nifti(half, tmp_path / part / f"{number}.nii.gz")

    found = measure_fidelity(
        scans_of(tmp_path / "even"),
        scans_of(tmp_path / "odd"),
        lens=Lens.embedded(),
        codec=HaarCodec(),
        cache=tmp_path / "cache",
        settings=FidelitySettings(splits=10),
    )
    assert {figure.verdict for figure in found.figures} <= {"pass", "not measured"}
