"""How fast scans come in: beside SimpleITK, on two cores beside one, and the memory.

    python benchmarks/intake.py --realdata ../shared/realdata

Reading takes real series from DICOM to HU, turn by turn with SimpleITK's own reader,
each in one thread. The whole of an intake (read, judge, encode, store) takes copies of
a real chest of 134 slices of 512 x 512 as studies of their own, on one core and on two,
turn by turn. The memory of an intake is what it needs beyond that of a study of 16
slices, by the voxels of the volume.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pydicom
import SimpleITK
from processes import ENVIRONMENT, MemoryWatch
from pydicom.uid import generate_uid

from ctflow_fed.ct.dicom import read_series
from ctflow_fed.files import write_json

RESULTS = Path(__file__).parent / "results" / "intake.json"
CHEST = "lung1_001"
SERIES = {
    f"{CHEST}, 134 slices": f"volumes/{CHEST}/dicom.tar.xz",
    "cmbcrc_msb01068, 100 slices": "volumes/cmbcrc_msb01068/dicom.tar.xz",
    "totalseg, 20 slices of JPEG 2000": "volumes/totalseg_example_dicom_j2k/dicom",
}
TURNS = 5
VOXEL_BYTES = 2  # HU in int16


def main() -> None:
    """Measure all of it and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--realdata", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/intake"))
    parser.add_argument("--studies", type=int, default=96)
    given = parser.parse_args()
    shutil.rmtree(given.out, ignore_errors=True)
    folders = {
        name: unpacked(given.realdata / place, given.out / "series" / str(number))
        for number, (name, place) in enumerate(SERIES.items())
    }
    result = {
        "reading": {name: reading(folder) for name, folder in folders.items()},
        "intake": intakes(folders[next(iter(SERIES))], given.out, given.studies),
    }
    write_json(RESULTS, result)
    print(json.dumps(result, indent=2))


def unpacked(source: Path, target: Path) -> Path:
    """Return the folder that holds the files of a series."""
    if source.is_dir():
        return source
    with tarfile.open(source) as tar:
        tar.extractall(target, filter="data")
    (folder,) = {path.parent for path in target.rglob("*") if path.is_file()}
    return folder


def reading(folder: Path) -> dict[str, float]:
    """Return the seconds of both readers, and their ratio turn by turn."""
    readers: tuple[Callable[[Path], object], ...] = (read_series, by_simpleitk)
    for reader in readers:
        reader(folder)  # the files are in memory from here on
    turns = [[seconds_of(reader, folder) for reader in readers] for _ in range(TURNS)]
    ours, theirs = (statistics.median(each) for each in zip(*turns, strict=True))
    ratio = statistics.median(a / b for a, b in turns)
    return {
        "seconds": round(ours, 3),
        "simpleitk_seconds": round(theirs, 3),
        "ratio": round(ratio, 2),
    }


def by_simpleitk(folder: Path) -> SimpleITK.Image:
    """Read a series as SimpleITK's documentation shows it, in one thread."""
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image: SimpleITK.Image = reader.Execute()
    return image


def seconds_of(work: Callable[[Path], object], folder: Path) -> float:
    """Return how long a reader takes."""
    began = time.perf_counter()
    work(folder)
    return time.perf_counter() - began


def intakes(series: Path, out: Path, studies: int) -> dict[str, float]:
    """Return what the intake of copies of a series takes of time and memory."""
    source = out / "studies"
    copied(series, source, studies)
    voxels = read_series(series).hu.size
    turns = [(intake(source, out, 1)[0], intake(source, out, 2)[0]) for _ in range(2)]
    copied(series, out / "one", 1)
    copied(series, out / "thin", 1, slices=16)
    peaks = [intake(out / name, out, 1)[1] for name in ("one", "thin")]
    return {
        "studies": studies,
        "one_core_seconds": round(statistics.mean(one for one, _ in turns), 1),
        "two_cores_seconds": round(statistics.mean(two for _, two in turns), 1),
        "times_faster": round(statistics.mean(one / two for one, two in turns), 2),
        "memory_by_volume": round(
            (peaks[0] - peaks[1]) * 1e6 / (voxels * VOXEL_BYTES), 2
        ),
    }


def copied(series: Path, target: Path, studies: int, slices: int | None = None) -> None:
    """Write a series so many times, each as a study of its own, with a report."""
    lines = ["study,findings"]
    slots = sorted((pydicom.dcmread(path) for path in series.iterdir()), key=height)
    for number in range(studies):
        folder = target / f"study{number}"
        folder.mkdir(parents=True)
        study, stack = generate_uid(), generate_uid()
        for slot in slots[:slices]:
            slot.StudyInstanceUID, slot.SeriesInstanceUID = study, stack
            slot.SOPInstanceUID = slot.file_meta.MediaStorageSOPInstanceUID = (
                generate_uid()
            )
            slot.save_as(folder / f"{slot.SOPInstanceUID}.dcm")
        lines.append(f"study{number},A mass in the left lung.")
    target.with_suffix(".csv").write_text("\n".join(lines) + "\n")


def height(slot: pydicom.Dataset) -> float:
    """Return where a slice lies along the body."""
    return float(slot.ImagePositionPatient[2])


def intake(source: Path, out: Path, cores: int) -> tuple[float, float]:
    """Return the seconds of an intake on so many cores, and the MB of its largest."""
    shutil.rmtree(out / "store", ignore_errors=True)
    words = ["ctflow", "intake", str(source), "--out", str(out / "store")]
    words += ["--reports", str(source.with_suffix(".csv")), "--region", "any"]
    words += ["--workers", str(cores)]
    held = ",".join(map(str, sorted(os.sched_getaffinity(0))[:cores]))
    began = time.perf_counter()
    process = subprocess.Popen(
        ["taskset", "--cpu-list", held, *words],
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with MemoryWatch({"intake": process.pid}) as watch:
        code = process.wait()
    seconds = time.perf_counter() - began
    if code != 0:
        raise SystemExit("the intake failed; run it by hand to see why")
    return seconds, max(watch.peaks["intake"].values())


if __name__ == "__main__":
    main()
