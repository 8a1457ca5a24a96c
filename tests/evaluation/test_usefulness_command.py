"""The command trains five arms once, and goes on where it was stopped."""

import csv
import json
import subprocess
import sys
from typing import ClassVar

import pytest
from click.testing import CliRunner

from ctflow_fed.cli import cli
from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.errors import MismatchError, ReportTableError, SettingsError
from ctflow_fed.processes import LOST


@pytest.fixture
def sets(studies, tmp_path):
    """Real, synthetic and test studies in a folder each, and tables of them."""
    folders = {}
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["study", *FINDINGS])
        for name, count in (("real", 8), ("synth", 6), ("test", 12)):
            folders[name] = tmp_path / name
            folders[name].mkdir()
            for item in studies(f"{name}-cli", count):
                link = folders[name] / f"{item['sample_id']}.nii.gz"
                link.symlink_to(item["image"])
                table.writerow([item["sample_id"], *item["label"].astype(int)])
    groups = "".join(f"test-cli-{n},{'FM'[n // 2 % 2]}\n" for n in range(12))
    (tmp_path / "groups.csv").write_text("study,sex\n" + groups)
    return folders


def command(sets, *options, test="test"):
    root = sets["real"].parent
    folders = sets["real"], sets["synth"], sets[test]
    tables = ("--labels", root / "labels.csv", "--synth-labels", root / "labels.csv")
    quick = ("--steps", 2, "--repeats", 1, "--grid", 16, 16, 16)
    words = ("evaluate", "utility", *folders, *tables, *quick, *options)
    return [str(each) for each in (*words, "--out", root / "out")]


def run(sets, *options, test="test"):
    return CliRunner().invoke(cli, command(sets, *options, test=test))


def test_the_command_goes_on_with_the_fits_that_are_there(sets):
    root = sets["real"].parent
    options = ("--groups", root / "groups.csv", "--fraction", 0.75, "--ratio", 0.5)

    first = run(sets, *options)

    assert first.exit_code == 0, first.output
    saved = (root / "out" / "utility.json").read_text()
    made = json.loads(saved)["made"]
    assert (made["real"], made["synthetic"], made["test"]) == (6, 3, 12)
    parts = {(each["name"], each["part"]) for each in json.loads(saved)["figures"]}
    assert {("gain", "over duplicated"), ("group_gain", "sex F")} < parts

    fits = {path: path.stat().st_mtime_ns for path in (root / "out/fits").iterdir()}
    assert len(fits) == 5
    assert run(sets, *options).exit_code == 0
    assert (root / "out" / "utility.json").read_text() == saved
    assert fits == {path: path.stat().st_mtime_ns for path in fits}


def test_a_test_that_was_trained_on_is_refused(sets):
    assert isinstance(run(sets, test="real").exception, MismatchError)


def test_too_many_groups_are_refused(sets):
    table = sets["real"].parent / "groups.csv"
    columns = [f"c{n}" for n in range(41)]
    rows = [["study", *columns], ["test-cli-0", *"x" * 41]]
    table.write_text("\n".join(",".join(row) for row in rows))

    assert isinstance(run(sets, "--groups", table).exception, ReportTableError)


def test_a_test_of_the_same_file_names_has_a_table_of_its_own(sets):
    root = sets["real"].parent
    header, *rows = (root / "labels.csv").read_text().splitlines()
    own = [row.replace("test-", "real-") for row in rows if row.startswith("test-")]
    others = [row for row in rows if not row.startswith("test-")]
    (root / "labels.csv").write_text("\n".join([header, *others]))
    (root / "test.csv").write_text("\n".join([header, *own]))
    for path in sorted(sets["test"].iterdir()):
        path.rename(path.with_name(path.name.replace("test-", "real-")))

    assert isinstance(run(sets).exception, ReportTableError)  # four have no label
    found = run(sets, "--test-labels", root / "test.csv")

    assert found.exit_code == 0, found.output
    made = json.loads((root / "out" / "utility.json").read_text())["made"]
    assert (made["real"], made["test"]) == (8, 12)


def test_workers_elsewhere_give_the_figures_of_this_process(sets, monkeypatch):
    root = sets["real"].parent
    said, asked = [], []
    monkeypatch.setattr(Lossy, "asked", asked)
    for options in ((), ("--ray", "--workers", 2)):
        monkeypatch.setattr("ctflow_fed.cli.actors._Actors", Lossy)
        assert run(sets, *options).exit_code == 0
        said.append(json.loads((root / "out" / "utility.json").read_text()))
        fits = list((root / "out" / "fits").iterdir())
        assert len(fits) == 5
        for path in fits:
            path.unlink()

    assert said[0] == said[1]
    assert len(asked) == 5


class Lossy:
    """Workers of which the one that has the second part is lost."""

    asked: ClassVar[list] = []

    def __init__(self, workers, address):
        assert (workers, address) == (2, None)

    def run(self, make_worker, batches):
        worker = make_worker()
        for number, batch in enumerate(batches):
            self.asked.append(batch)
            yield batch, [LOST] if number == 1 else worker(batch)


@pytest.mark.slow
@pytest.mark.ray
def test_the_command_trains_in_the_actors_of_a_ray(sets):
    root = sets["real"].parent
    words = [sys.executable, "-m", "ctflow_fed", *command(sets, "--ray")]

    subprocess.run(words, check=True, capture_output=True)

    assert len(list((root / "out" / "fits").iterdir())) == 5


def test_an_address_without_a_ray_is_refused(sets):
    result = run(sets, "--address", "ray://head:10001")

    assert isinstance(result.exception, SettingsError)
    assert "add --ray" in str(result.exception)
