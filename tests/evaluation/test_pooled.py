"""Fidelity over sites: exact from sums, refused where sums would tell of a patient."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from ctflow_fed.cli import cli
from ctflow_fed.ct.nifti import write_nifti
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.errors import MismatchError, SettingsError, StoreError
from ctflow_fed.evaluation.distances import frechet_distance
from ctflow_fed.evaluation.features import FeatureCache, HaarSlices, HaarVolumes
from ctflow_fed.evaluation.figure import Figure
from ctflow_fed.evaluation.measuring import Lens, measure_scans
from ctflow_fed.evaluation.pooled import compare_with_sites, write_statistics
from ctflow_fed.evaluation.scans import scans_of

AFFINE = np.diag([6.0, -6.0, -6.0, 1.0])[[2, 1, 0, 3]]


def block(seed: int, brighter: int = 0) -> CTVolume:
    """A block in air, of another place and density for every patient."""
    rng = np.random.default_rng(seed)
    hu = rng.normal(-950, 20, (8, 12, 12))
    at = rng.integers(1, 5, 2)
    hu[2:6, at[0] : at[0] + 6, at[1] : at[1] + 6] = rng.normal(30, 15) + brighter
    return CTVolume(hu.round().astype(np.int16), AFFINE)


@pytest.fixture(scope="module")
def lens() -> Lens:
    return Lens(HaarSlices(), HaarVolumes(), count=1)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, lens: Lens) -> Path:
    """Two sites and their sums, and synthetic volumes alike and brighter."""
    folder = tmp_path_factory.mktemp("pooled")
    for name, first, count, brighter in (
        ("north", 0, 20, 0),
        ("south", 100, 24, 0),
        ("alike", 200, 44, 0),
        ("brighter", 200, 44, 120),
    ):
        for number in range(count):
            path = folder / name / f"{number:02d}.nii.gz"
            write_nifti(block(first + number, brighter), path)
    for site in ("north", "south"):
        write_statistics(
            scans_of(folder / site),
            lens,
            folder / "cache",
            folder / f"{site}.safetensors",
        )
    return folder


@pytest.fixture(scope="module")
def compared(root: Path, lens: Lens) -> dict[str, Sequence[Figure]]:
    """The figures of each synthetic set against both sites."""
    sites = [root / "north.safetensors", root / "south.safetensors"]
    return {
        name: compare_with_sites(
            sites, scans_of(root / name), lens, root / "cache", 0
        ).figures
        for name in ("alike", "brighter")
    }


def test_sums_give_the_distance_of_the_pooled_volumes(compared, root: Path, lens: Lens):
    cache = FeatureCache(root / "cache")
    tables = {
        name: measure_scans(scans_of(root / name), lens, cache)["lung/volume"]
        for name in ("north", "south", "alike")
    }
    real = np.concatenate([tables["north"], tables["south"]])

    lung = compared["alike"][0]
    expected = frechet_distance(real, tables["alike"])
    assert lung.value.value == pytest.approx(expected, abs=1e-6)
    assert lung.n == 44


def test_sets_alike_sit_at_the_simulated_floor_and_brighter_ones_do_not(compared):
    alike, brighter = compared["alike"], compared["brighter"]

    assert [figure.verdict for figure in alike].count("pass") >= 2
    assert brighter[1].verdict == "fail"
    assert brighter[1].value.low > brighter[1].floor.high


def test_a_site_with_fewer_than_twenty_patients_writes_nothing(root, lens, tmp_path):
    few = scans_of(root / "north")[:19]

    with pytest.raises(SettingsError, match="20 volumes or more"):
        write_statistics(few, lens, tmp_path / "cache", tmp_path / "few.safetensors")
    assert not list(tmp_path.iterdir())


def test_fewer_synthetic_volumes_than_real_ones_are_refused(root, lens):
    sites = [root / "north.safetensors", root / "south.safetensors"]

    with pytest.raises(SettingsError, match="44 synthetic volumes or more"):
        compare_with_sites(
            sites, scans_of(root / "alike")[:43], lens, root / "cache", 0
        )


@pytest.mark.parametrize(
    "change",
    [
        {"lung/count": torch.tensor(19)},
        {"lung/count": torch.tensor(20.0)},
        {"lung/total": torch.full((36,), torch.nan, dtype=torch.float64)},
        {"lung/outer": torch.zeros(36, 36, dtype=torch.float64)},
        {"lung/outer": torch.zeros(3, 36, dtype=torch.float64)},
    ],
)
def test_sums_that_cannot_be_are_refused(root: Path, lens, tmp_path: Path, change):
    path = tmp_path / "site.safetensors"
    arrays = load_file(root / "north.safetensors") | change
    save_file(arrays, path, {"extractor": HaarVolumes().extractor_id})

    with pytest.raises((StoreError, SettingsError)):
        compare_with_sites([path], scans_of(root / "alike"), lens, root / "cache", 0)


def test_sums_of_another_extractor_and_files_of_another_kind_are_refused(
    root: Path, lens: Lens, tmp_path: Path
):
    other, broken = tmp_path / "other.safetensors", tmp_path / "broken.safetensors"
    save_file(load_file(root / "north.safetensors"), other, {"extractor": "another"})
    broken.write_bytes(b"no sums")

    for path, error in ((other, MismatchError), (broken, StoreError)):
        with pytest.raises(error):
            compare_with_sites([path], scans_of(root / "alike"), lens, root / "c", 0)


def test_the_commands_write_sums_and_compare_with_them(root: Path, tmp_path: Path):
    sums, out = tmp_path / "north.safetensors", tmp_path / "out"
    first = ["evaluate", "statistics", str(root / "north"), "--out", str(sums)]
    second = ["evaluate", "pooled", str(root / "alike"), str(sums), "--out", str(out)]

    written = CliRunner().invoke(cli, first, catch_exceptions=False)
    assert "sums of 20 volumes" in written.stdout
    assert set(load_file(sums)) == {
        f"{window}/{name}"
        for window in ("lung", "mediastinal", "bone")
        for name in ("count", "total", "outer")
    }
    shown = CliRunner().invoke(cli, second, catch_exceptions=False)
    assert shown.exit_code == 0
    assert "fd_3d" in shown.stdout
    assert (out / "fidelity.json").exists()
