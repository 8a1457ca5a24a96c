"""Drift: each fault that is planted into drawn volumes is found, and no other."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from ctflow_fed.cli import cli
from ctflow_fed.ct.nifti import write_nifti
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.errors import SettingsError, VolumeError
from ctflow_fed.evaluation.drift import Drawn, measure_drift
from ctflow_fed.evaluation.drift.order import order_figure
from ctflow_fed.evaluation.drift.profile import (
    alike,
    jumps_of,
    profile_of,
    without_repeated_end,
)
from ctflow_fed.evaluation.drift.seams import phase_test, seam_ratio
from ctflow_fed.evaluation.features import FeatureCache
from ctflow_fed.evaluation.figure import Figure
from ctflow_fed.evaluation.scans import scans_of

COUNT, SLICES, SIDE = 8, 64, 24


def chest(seed: int, *, slices: int = SLICES, slice_mm: float = 4.0) -> CTVolume:
    """A body whose lungs come and go with height, with a spine, and noise."""
    rng = np.random.default_rng(seed)
    axes = (np.linspace(-1, 1, n) for n in (slices, SIDE, SIDE))
    z, y, x = np.meshgrid(*axes, indexing="ij")
    wide = rng.uniform(0.75, 0.9) * (1 + rng.normal(0, 0.03) * z)
    body = (x / wide) ** 2 + (y / 0.7) ** 2 < 1
    middle = rng.normal(0, 0.04)
    lung = ((np.abs(x) - 0.4) / 0.3) ** 2 + (y / 0.45) ** 2 + (z - middle) ** 2 < 1
    hu = np.where(body, rng.normal(40, 5), -1000.0)
    hu[lung] = rng.normal(-800, 20)
    hu[body & (x**2 + (y - 0.5) ** 2 < 0.02)] = 500
    hu += rng.normal(0, 15, hu.shape)
    affine = np.diag([slice_mm, -8.0, -8.0, 1.0])[[2, 1, 0, 3]]
    return CTVolume(hu.round().astype(np.int16), affine)


def changed(volume: CTVolume, change) -> CTVolume:
    hu = volume.hu.astype(float)
    height = np.linspace(0, 1, len(hu))[:, None, None]
    return CTVolume(np.round(change(hu, height)).astype(np.int16), volume.affine)


def brighter_above(hu, height):
    return hu + 150 * height * (hu > -500)


def noisier_above(hu, height):
    return hu + 120 * height * np.random.default_rng(1).normal(size=hu.shape)


def with_seams(hu, height):
    block = np.arange(len(hu)) // 16
    return hu + 60 * (block % 2)[:, None, None]


def frozen(hu, height):
    hu[20:28] = hu[20]
    return hu


def moved(hu, height):
    return np.concatenate([hu[:32], np.roll(hu[32:], 4, axis=2)])


def repeated(hu, height):
    hu[-10:] = hu[-10]
    return hu


FAULTS = (brighter_above, noisier_above, with_seams, frozen, moved, repeated)


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Figure]]:
    """The figures of each fault, and of volumes without one."""
    root = tmp_path_factory.mktemp("drift")
    for number in range(COUNT):
        name = f"{number}.nii.gz"
        write_nifti(chest(number), root / "real" / name)
        write_nifti(chest(100 + number), root / "sound" / name)
        for fault in FAULTS:
            write_nifti(
                changed(chest(100 + number), fault), root / fault.__name__ / name
            )
    names = ["sound", *(fault.__name__ for fault in FAULTS)]
    sets = [Drawn(name, scans_of(root / name)) for name in names]
    found = measure_drift(scans_of(root / "real"), sets, root / "cache", splits=20)
    by_part: dict[str, dict[str, Figure]] = {}
    for figure in found.figures:
        by_part.setdefault(figure.part, {})[figure.name] = figure
    return by_part


def failed(figures: dict[str, Figure]) -> set[str]:
    return {name for name, figure in figures.items() if figure.verdict == "fail"}


def test_volumes_without_a_fault_pass_nearly_everything(figures):
    assert len(failed(figures["sound"])) <= 1
    assert figures["sound"]["seam_ratio"].value.value == pytest.approx(1, abs=0.05)


def test_a_bias_that_grows_shows_in_the_curve(figures):
    found = figures["brighter_above"]

    assert {"kid_slope", "kid_highest"} <= failed(found)
    assert "kid_lowest" not in failed(found)
    assert found["kid_slope"].value.low > 0


def test_noise_that_grows_shows_in_sharpness(figures):
    assert "contrast_sharpness" in failed(figures["noisier_above"])
    assert "contrast_sharpness" not in failed(figures["sound"])


def test_seams_show_in_their_ratio_and_in_the_phase_test(figures):
    found = figures["with_seams"]

    assert {"seam_ratio", "seam_phase_p"} <= failed(found)
    assert found["seam_ratio"].value.low > 1.05
    assert found["seam_phase_p"].value.value < 1e-6
    assert figures["sound"]["seam_phase_p"].verdict == "pass"


def test_slices_that_stand_still_and_slices_that_leap_are_found(figures):
    assert "frozen" in failed(figures["frozen"])
    assert "seam_ncc" in failed(figures["moved"])
    assert "tilt_body_col" in failed(figures["moved"])


def test_copies_at_the_end_are_told_and_left_out(figures):
    found = figures["repeated"]

    assert found["repeated_end"].value.value == 1
    assert "frozen" not in failed(found)
    assert figures["sound"]["wrong_length"].verdict == "not measured"


def test_organs_out_of_order_are_not_measured_and_that_is_said(figures):
    assert figures["sound"]["anatomy_order"].verdict == "not measured"


def test_a_length_that_was_asked_for_is_checked(tmp_path: Path):
    for number in range(4):
        write_nifti(chest(number, slices=20), tmp_path / f"{number}.nii.gz")
    scans = scans_of(tmp_path)

    sets = [Drawn("20", scans, 20), Drawn("24", scans, 24)]
    found = measure_drift(scans, sets, tmp_path / "cache", splits=20)
    lengths = [f.verdict for f in found.figures if f.name == "wrong_length"]
    assert lengths == ["pass", "fail"]


def test_a_set_of_which_few_could_be_drawn_is_not_measured(tmp_path: Path):
    for number in range(4):
        write_nifti(chest(number, slices=20), tmp_path / f"{number}.nii.gz")
    scans = scans_of(tmp_path)

    sets = [Drawn("20 given-head", scans[:3], 20), Drawn("32", (), 32, "none is long")]
    found = measure_drift(scans, sets, tmp_path / "cache", splits=20).figures
    assert [figure.verdict for figure in found] == ["not measured"] * 2
    assert "fewer than 4" in found[0].method
    assert found[1].method == "none is long"
    with pytest.raises(SettingsError, match="4 or more patients"):
        measure_drift(scans, [Drawn("", scans[:3])], tmp_path / "cache", splits=20)


def test_volumes_too_short_for_parts_are_refused(tmp_path: Path):
    for number in range(4):
        write_nifti(chest(number, slices=7), tmp_path / f"{number}.nii.gz")
    scans = scans_of(tmp_path)

    with pytest.raises(SettingsError, match="8 slices or more"):
        measure_drift(scans, [Drawn("", scans)], tmp_path / "cache")


def test_finer_real_volumes_are_thinned_and_coarser_ones_are_not_compared(tmp_path):
    fine = chest(0, slices=128, slice_mm=2.0)

    thin = alike(fine, 4.0, SIDE)
    assert np.array_equal(thin.hu, fine.hu[::2])
    assert thin.spacing[0] == pytest.approx(4.0)

    for number in range(4):
        write_nifti(chest(number, slice_mm=6.0), tmp_path / "real" / f"{number}.nii.gz")
        write_nifti(chest(50 + number), tmp_path / "drawn" / f"{number}.nii.gz")
    found = measure_drift(
        scans_of(tmp_path / "real"),
        [Drawn("", scans_of(tmp_path / "drawn"))],
        tmp_path / "cache",
        splits=20,
    )
    verdicts = {figure.name: figure.verdict for figure in found.figures}
    assert verdicts["frozen"] == verdicts["seam_ncc"] == "not measured"


def order(tmp_path, *, upside_down):
    """Return the figure of maps of organs, of which drawn ones may be turned."""
    for number in range(6):
        organs = np.zeros((SLICES, SIDE, SIDE), np.int16)
        for organ, start in ((7, 0), (50, 20), (51, 40)):
            organs[start + number : start + number + 20] = organ
        for folder, turned in (("real", False), ("drawn", upside_down and number == 2)):
            volume = CTVolume(
                organs[::-1].copy() if turned else organs, chest(0).affine
            )
            write_nifti(volume, tmp_path / f"{folder}-maps" / f"{number}.nii.gz")
        write_nifti(chest(number), tmp_path / "scans" / f"{number}.nii.gz")
    maps = [str(tmp_path / f"{name}-maps") for name in ("real", "drawn")]
    scans, out = str(tmp_path / "scans"), str(tmp_path / "out")
    words = ["evaluate", "drift", scans, scans, "--organs", *maps, "--out", out]
    assert CliRunner().invoke(cli, words).exit_code == 0
    figures = json.loads((tmp_path / "out" / "drift.json").read_text())["figures"]
    return next(each for each in figures if each["name"] == "anatomy_order")


def test_organs_in_the_order_of_real_ones_pass(tmp_path):
    found = order(tmp_path, upside_down=False)

    assert found["verdict"] == "pass"
    assert (found["n"], "3 pairs" in found["method"]) == (6, True)


def test_organs_of_which_either_may_be_the_higher_have_no_order(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(40):
        organs = np.zeros((SLICES, SIDE, SIDE), np.int16)
        for organ in range(1, 13):  # kidneys, as it were
            organs[30 + rng.integers(-6, 7), organ] = organ
        organs[2], organs[60] = 20, 21
        folder = tmp_path / ("real" if number < 20 else "drawn")
        write_nifti(CTVolume(organs, chest(0).affine), folder / f"{number}.nii.gz")
    sides = [scans_of(tmp_path / name) for name in ("drawn", "real")]

    found = order_figure(*sides, "", FeatureCache(tmp_path / "cache"))

    assert found.verdict == "pass"
    assert "25 pairs" in found.method  # the lowest and the highest, with all others


def test_maps_that_show_nothing_are_no_pass(tmp_path):
    for number in range(6):
        organs = np.zeros((SLICES, SIDE, SIDE), np.int16)
        write_nifti(
            CTVolume(organs, chest(0).affine), tmp_path / "drawn" / f"{number}.nii.gz"
        )
        organs[10 + number : 15], organs[40 : 45 + number] = 1, 2
        write_nifti(
            CTVolume(organs, chest(0).affine), tmp_path / "real" / f"{number}.nii.gz"
        )
    sides = [scans_of(tmp_path / name) for name in ("drawn", "real")]

    found = order_figure(*sides, "", FeatureCache(tmp_path / "cache"))

    assert found.verdict == "not measured"


def test_an_organ_that_is_out_of_order_fails(tmp_path):
    found = order(tmp_path, upside_down=True)

    assert found["verdict"] == "fail"
    assert found["value"]["value"] == pytest.approx(1 / 6)


def test_maps_of_other_numbers_are_refused(tmp_path):
    scans = tmp_path / "scans"
    for number in range(4):
        write_nifti(chest(number), scans / f"{number}.nii.gz")
    words = ["evaluate", "drift", scans, scans, "--organs", scans, scans]

    result = CliRunner().invoke(
        cli, [str(a) for a in (*words, "--out", tmp_path / "o")]
    )

    assert isinstance(result.exception, VolumeError)
    assert "maps of organs by numbers below 256" in str(result.exception)


def test_without_copies_at_its_end_a_volume_keeps_its_slices():
    volume = changed(chest(0), repeated)

    assert len(without_repeated_end(volume).hu) == SLICES - 9
    assert len(without_repeated_end(chest(0)).hu) == SLICES


def test_a_slice_that_is_moved_by_three_pixels_is_moved_by_three():
    volume = chest(0, slices=8)
    hu = volume.hu.copy()
    hu[:] = hu[4]
    hu[4:] = np.roll(hu[4], 3, axis=1)

    shifts = profile_of(CTVolume(hu, volume.affine))["shift"]
    assert shifts.max() == 3


def test_the_seam_ratio_is_one_against_itself_and_grows_with_a_step():
    sound = [chest(number).hu for number in range(3)]
    stepped = [changed(chest(number), with_seams).hu for number in range(3)]

    assert seam_ratio(sound, sound) == 1
    assert seam_ratio(stepped, sound) > 1.5


def test_the_phase_test_is_the_tail_of_a_binomial():
    jumps = [jumps_of(changed(chest(n), with_seams).hu) for n in range(3)]

    assert phase_test(jumps) == pytest.approx(16.0**-3)
    assert np.isnan(phase_test([jumps[0][:20]]))


def test_the_command_measures_a_folder_of_any_generator(tmp_path: Path):
    for number in range(4):
        write_nifti(chest(number), tmp_path / "real" / f"{number}.nii.gz")
        write_nifti(chest(9 + number), tmp_path / "drawn" / f"{number}.nii.gz")
    words = ["evaluate", "drift", str(tmp_path / "real"), str(tmp_path / "drawn")]

    result = CliRunner().invoke(
        cli, [*words, "--out", str(tmp_path / "out")], catch_exceptions=False
    )
    assert result.exit_code == 0
    assert "seam_ratio" in result.stdout
    found = json.loads((tmp_path / "out/drift.json").read_text())
    assert found["kind"] == "drift"


@pytest.mark.slow
def test_the_command_draws_what_it_measures(tmp_path: Path):
    for number in range(4):
        write_nifti(chest(number), tmp_path / "real" / f"{number}.nii.gz")
    words = ["evaluate", "drift", str(tmp_path / "real"), "--model", "base"]
    words += ["--length", "32", "--seeds", "1", "--steps", "1"]
    words += ["--mode", "full-body", "--mode", "teacher-forced"]

    result = CliRunner().invoke(
        cli, [*words, "--out", str(tmp_path / "out")], catch_exceptions=False
    )
    assert result.exit_code == 0
    found = json.loads((tmp_path / "out/drift.json").read_text())
    assert found["made"]["sets"] == {"32 full-body": 5, "32 teacher-forced": 4}
    lengths = [f["verdict"] for f in found["figures"] if f["name"] == "wrong_length"]
    assert lengths == ["pass", "pass"]
