"""Intake on a Ray: the actors take what one process takes."""

import subprocess
import sys
from pathlib import Path

import pytest

from ctflow_fed.ct.nifti import write_nifti
from ctflow_fed.ct.phantom import Scanner, draw
from ctflow_fed.ct.store import LatentStore

ROOT = Path(__file__).resolve().parents[2]
SCANNER = Scanner(slices=16, rows=32, slice_mm=18.0)


@pytest.mark.slow
@pytest.mark.ray
def test_two_actors_take_what_one_process_takes(tmp_path):
    source, reports = tmp_path / "scans", tmp_path / "reports.csv"
    for number in range(5):
        volume = draw(number, scanner=SCANNER).volume
        write_nifti(volume, source / f"study-{number}.nii.gz")
    (source / "study-5.nii.gz").write_bytes(b"no scan")
    rows = [f"study-{number},A nodule of {number + 3} mm." for number in range(6)]
    reports.write_text("\n".join(["study,report", *rows]))

    command = [sys.executable, "-m", "ctflow_fed", "intake", source]
    command += ["--reports", reports, "--image-size", "32", "--out"]
    one, two = tmp_path / "one", tmp_path / "two"
    for out, *options in ((one, "--workers", "1"), (two, "--ray", "--workers", "2")):
        done = subprocess.run(
            [*map(str, command), str(out), *options],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert "5 taken, 0 in the store already, 1 refused" in done.stdout

    digests = [
        [record.sha256 for record in LatentStore.open(out).records]
        for out in (one, two)
    ]
    assert digests[0] == digests[1]
