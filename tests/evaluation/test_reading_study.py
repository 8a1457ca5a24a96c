"""A reading study is blinded, and its filled sheets are read as they were meant."""

import csv
import json

import nibabel
import numpy as np
import pytest
from click.testing import CliRunner

from ctflow_fed.cli import cli
from ctflow_fed.errors import ReportTableError, SettingsError, StoreError
from ctflow_fed.evaluation.reading_study import study_figures

KINDS = ["real"] * 20 + ["synthetic"] * 20 + ["other report"] * 10


def fill(path, kinds, agreement, *, looks_real=("real",)):
    """Fill a sheet: ratings by kind, and which kinds are taken for real."""
    with path.open("w", newline="") as file:
        sheet = csv.writer(file)
        sheet.writerow(["case", "real", "agreement", "quality", "remarks"])
        for number, kind in enumerate(kinds, start=1):
            real = "yes" if kind in looks_real else "no"
            sheet.writerow([number, real, agreement[kind], 4, ""])
    return path


def verdicts(*sheets):
    return {each.name: each for each in study_figures(KINDS, sheets, seed=0)}


def test_volumes_that_are_rated_as_real_scans_pass(tmp_path):
    ratings = {"real": 5, "synthetic": 5, "other report": 1}
    sheet = fill(tmp_path / "a.csv", KINDS, ratings, looks_real=("real", "synthetic"))

    found = verdicts(sheet)

    assert {each.verdict for each in found.values()} == {"pass"}
    assert found["reader_agreement"].value.value == 1
    assert found["readers_tell_apart"].value.value == 0.5


def test_volumes_that_are_rated_as_under_another_report_fail(tmp_path):
    sheet = fill(
        tmp_path / "a.csv", KINDS, {"real": 5, "synthetic": 2, "other report": 2}
    )

    found = verdicts(sheet)

    assert found["reader_agreement"].verdict == "fail"
    assert found["reader_agreement"].value.value == 0
    assert found["readers_tell_apart"].value.value == 1
    assert found["readers_tell_apart"].verdict == "fail"


def test_readers_are_averaged(tmp_path):
    first = {"real": 5, "synthetic": 5, "other report": 1}
    second = {"real": 5, "synthetic": 1, "other report": 1}
    sheets = [
        fill(tmp_path / f"{number}.csv", KINDS, ratings)
        for number, ratings in enumerate((first, second))
    ]

    assert verdicts(*sheets)["reader_agreement"].value.value == pytest.approx(0.5)


def test_readers_who_rate_everything_alike_measure_nothing(tmp_path):
    sheet = fill(tmp_path / "a.csv", KINDS, dict.fromkeys(set(KINDS), 3))

    assert verdicts(sheet)["reader_agreement"].verdict == "not measured"


def test_a_sheet_that_is_not_filled_in_is_refused(tmp_path):
    sheet = fill(tmp_path / "a.csv", KINDS, dict.fromkeys(set(KINDS), 6))
    with pytest.raises(ReportTableError, match="fill it in"):
        study_figures(KINDS, [sheet], seed=0)
    sheet = fill(tmp_path / "a.csv", KINDS[:-1], dict.fromkeys(set(KINDS), 3))
    with pytest.raises(ReportTableError, match="50 cases"):
        study_figures(KINDS, [sheet], seed=0)


@pytest.fixture
def sets(tmp_path):
    """Real scans and synthetic volumes, each with a report of its own."""
    rng = np.random.default_rng(0)
    for name, count in (("real", 6), ("synth", 8)):
        (tmp_path / name).mkdir()
        rows = ["study,report"]
        for number in range(count):
            hu = rng.integers(-1000, 100, (8, 16, 16)).astype(np.int16)
            image = nibabel.Nifti1Image(hu, np.diag([9.0, 9, 9, 1]))
            nibabel.save(image, tmp_path / name / f"{name}-{number}.nii.gz")
            rows.append(f"{name}-{number},Finding of {name} {number}.")
        (tmp_path / f"{name}.csv").write_text("\n".join(rows))
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(cli, [str(each) for each in ("evaluate", *arguments)])


def test_a_study_goes_from_scans_to_figures_and_tells_readers_nothing(sets):
    out = sets / "out"
    tables = ("--reports", sets / "real.csv", "--synth-reports", sets / "synth.csv")

    result = run(
        *("study", sets / "real", sets / "synth", *tables, "--cases", 10, "--out", out)
    )

    assert result.exit_code == 0, result.output
    page = (out / "study.html").read_text().partition("<script>")[0]
    assert page.count('<section class="case"') == 10
    assert page.count("Finding of ") == 10
    assert page.count('<script type="text/plain" id="volume-') == 10
    assert not any(f"{name}-" in page for name in ("real", "synth"))
    assert "http" not in page.replace("http-equiv", "")
    kinds = json.loads((out / "key.json").read_text())["cases"]
    assert sorted(kinds) == sorted(
        ["real"] * 4 + ["synthetic"] * 4 + ["other report"] * 2
    )

    assert isinstance(
        run("answers", out, out / "answers.csv", "--out", out).exception,
        ReportTableError,
    )
    ratings = {"real": 5, "synthetic": 4, "other report": 1}
    fill(out / "answers.csv", kinds, ratings)
    result = run("answers", out, out / "answers.csv", "--out", out / "result")
    assert result.exit_code == 0, result.output
    saved = json.loads((out / "result" / "answers.json").read_text())
    assert saved["figures"][0]["value"]["value"] == pytest.approx(0.75)


def test_what_is_too_small_or_no_study_is_refused(sets):
    tables = ("--reports", sets / "real.csv", "--synth-reports", sets / "synth.csv")
    folders = sets / "real", sets / "synth"

    few = run("study", *folders, *tables, "--cases", 50, "--out", sets / "out")
    none = run("answers", sets, sets / "real.csv", "--out", sets / "out")

    assert isinstance(few.exception, SettingsError)
    assert "20 real and 30 synthetic" in str(few.exception)
    assert isinstance(none.exception, StoreError)
