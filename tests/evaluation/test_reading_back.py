"""The command trains a reader on real scans and lets it read volumes."""

import csv
import json

import nibabel
import numpy as np
import pytest
from click.testing import CliRunner

from ctflow_fed.cli import cli
from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.errors import ReportTableError, SettingsError
from ctflow_fed.evaluation.reading_back import read_labels

SEEN = FINDINGS.index("Consolidation")


def write(folder, count, *, shown):
    """Write scans of which those in ``shown`` have a dense block, and their labels."""
    folder.mkdir()
    rng = np.random.default_rng(len(shown))
    with folder.with_suffix(".csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["study", *FINDINGS])
        for number in range(count):
            hu = rng.normal(-800, 30, (16, 32, 32))
            present = number in shown
            hu[4:12, 8:24, 8:24] += 800 * present
            labels = np.zeros(18, int)
            labels[SEEN] = number % 2
            image = nibabel.Nifti1Image(hu.astype(np.int16), np.diag([9.0, 9, 9, 1]))
            nibabel.save(image, folder / f"{folder.name}-{number}.nii.gz")
            table.writerow([f"{folder.name}-{number}", *labels])
    return folder


def run(real, synth, out, *options):
    tables = ("--labels", f"{real}.csv", "--synth-labels", f"{synth}.csv")
    command = ("evaluate", "alignment", real, synth, *tables, "--out", out, *options)
    return CliRunner().invoke(cli, [str(each) for each in command])


@pytest.mark.slow
def test_the_command_tells_volumes_that_show_their_findings(tmp_path):
    odd = set(range(1, 36, 2))
    real = write(tmp_path / "real", 36, shown=odd)
    true = write(tmp_path / "true", 12, shown=odd)
    false = write(tmp_path / "false", 12, shown=set(range(3, 9)))
    out = tmp_path / "out"

    verdicts = []
    for synth in (true, false):
        result = run(real, synth, out, "--steps", 20)
        assert result.exit_code == 0, result.output
        saved = json.loads((out / "alignment.json").read_text())
        assert saved["figures"][1]["part"] == "Consolidation"
        verdicts.append([each["verdict"] for each in saved["figures"]])

    assert verdicts == [
        ["pass", "pass", "not measured"],
        ["fail", "fail", "not measured"],
    ]
    assert len(list(out.glob("features/reader-*"))) == 1  # trained once


def test_volumes_without_labels_are_refused(tmp_path):
    real = write(tmp_path / "real", 3, shown=set())
    synth = write(tmp_path / "synth", 2, shown=set())
    table = tmp_path / "synth.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:2]))

    result = run(real, synth, tmp_path / "out")

    assert isinstance(result.exception, ReportTableError)
    assert "1 of 2" in str(result.exception)


def test_pairs_of_files_that_are_not_there_are_refused(tmp_path):
    real = write(tmp_path / "real", 3, shown=set())
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("finding,with,without\nConsolidation,a,b\nCough,real-0,real-1\n")

    result = run(real, real, tmp_path / "out", "--pairs", pairs)

    assert isinstance(result.exception, ReportTableError)
    assert "1 pairs of other files and 1 of other findings" in str(result.exception)


def test_too_few_patients_are_refused(tmp_path):
    real = write(tmp_path / "real", 3, shown=set())

    result = run(real, real, tmp_path / "out")

    assert isinstance(result.exception, SettingsError)


def test_labels_are_read_from_reports_where_a_table_has_no_columns_of_them(tmp_path):
    table = tmp_path / "reports.csv"
    table.write_text("study,report\na.nii.gz,Consolidation in the left lung.\nb,\n")

    labels = read_labels(table)

    assert set(labels) == {"a"}
    assert labels["a"]["Consolidation"] == 1
