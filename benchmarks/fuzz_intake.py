"""Mutated DICOM, NIfTI, NRRD and MHA: read or refused, never a crash or a hang.

    python benchmarks/fuzz_intake.py --count 50000

Each input is a function of the seed and its number; the same command goes on where it
was stopped. A reader may raise `VolumeError` alone; anything else, 10 seconds of
computing, a minute by the clock or 512 MiB more end the run with the number.
"""

import argparse
import faulthandler
import gzip
import resource
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import SimpleITK

from ctflow_fed.ct.dicom import SeriesTags, read_series, write_series
from ctflow_fed.ct.metaimage import read_itk
from ctflow_fed.ct.nifti import read_nifti, write_nifti
from ctflow_fed.ct.phantom.forms import recoded
from ctflow_fed.ct.policy import IntakePolicy
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.errors import VolumeError
from ctflow_fed.files import read_json, write_json

SYNTAXES = {
    "jpeg": gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    "jpeg-ls": gdcm.TransferSyntax.JPEGLSLossless,
    "jpeg-2000": gdcm.TransferSyntax.JPEG2000Lossless,
    "rle": gdcm.TransferSyntax.RLELossless,
}
LENIENT = IntakePolicy("correct", "resample", "accept", "any")
"""What lets most of the code see an input."""

SECONDS = 10.0
MINUTE = 60.0
MEBIBYTES = 512
SAVED_EVERY = 250
RESULT = Path(__file__).parent / "results" / "intake_fuzz.json"


def small_volume() -> CTVolume:
    """Return a ball in air, 3 slices of 16 x 16 pixels."""
    z, y, x = np.ogrid[:3, :16, :16]
    ball = (4 * (z - 1)) ** 2 + (y - 8) ** 2 + (x - 8) ** 2 < 36
    affine = np.diag([2.5, -1.5, -1.5, 1.0])[[2, 1, 0, 3]]
    return CTVolume(np.where(ball, 40, -1000).astype(np.int16), affine)


def originals(folder: Path) -> dict[str, list[bytes]]:
    """Return the files of each kind: a series in each syntax, and a volume."""
    write_series(small_volume(), folder / "plain", seed=0, tags=SeriesTags("SYN-0"))
    plain = sorted((folder / "plain").iterdir())
    kinds = {"plain": [path.read_bytes() for path in plain]}
    for name, syntax in SYNTAXES.items():
        kinds[name] = [recoded(path, syntax) for path in plain]
    write_nifti(small_volume(), folder / "v.nii")
    image = SimpleITK.GetImageFromArray(small_volume().hu)
    image.SetSpacing((1.5, 1.5, 2.5))
    for name in ("v.nrrd", "v.mha", "packed.nrrd", "packed.mha"):
        SimpleITK.WriteImage(image, str(folder / name), name.startswith("packed"))
    volumes = sorted(folder.glob("*.*"))
    return kinds | {path.name: [path.read_bytes()] for path in volumes}


def mutated(content: bytes, generator: np.random.Generator) -> bytes:
    """Change, cut, repeat or blow up a few bytes."""
    changed = bytearray(content)
    for _ in range(int(generator.integers(1, 6))):
        at = int(generator.integers(len(changed)))
        match int(generator.integers(5)):
            case 0:
                changed[at] = int(generator.integers(256))
            case 1:
                changed[at : at + 4] = b"\xff\xff\xff\x7f"
            case 2:
                changed[at : at + int(generator.integers(1, 40))] = b"\0"
            case 3:
                changed[at:at] = changed[at : at + int(generator.integers(1, 200))]
            case 4:
                del changed[at + 1 :]  # never to nothing
    return bytes(changed)


def run_one(kinds: dict[str, list[bytes]], number: int, seed: int) -> str:
    """Read one mutated input and tell what became of it."""
    generator = np.random.default_rng([seed, number])
    kind = str(generator.choice(list(kinds)))
    files = list(kinds[kind])
    which = int(generator.integers(len(files)))
    files[which] = mutated(files[which], generator)
    packed = kind == "v.nii" and bool(generator.integers(2))
    with tempfile.TemporaryDirectory() as name:
        path = written(Path(name), kind, files, packed=packed)
        before = sorted(Path(name).rglob("*"))
        try:
            read(path)
            verdict = "read"
        except VolumeError:
            verdict = "refused"
        if sorted(Path(name).rglob("*")) != before:
            raise RuntimeError("a reader wrote a file")
    return f"{kind}: {verdict}"


def written(folder: Path, kind: str, files: list[bytes], *, packed: bool) -> Path:
    """Write the file of a volume, or the folder of a series."""
    if "." in kind:
        path = folder / (f"{kind}.gz" if packed else kind)
        path.write_bytes(gzip.compress(files[0], 1) if packed else files[0])
        return path
    path = folder / "series"
    path.mkdir()
    for index, content in enumerate(files):
        (path / f"{index}.dcm").write_bytes(content)
    return path


def read(path: Path) -> None:
    """Read a series or a volume with the reader for it."""
    if path.is_dir():
        read_series(path, LENIENT)
    elif path.suffix in {".nrrd", ".mha"}:
        read_itk(path)
    else:
        read_nifti(path)


def begun(seed: int) -> dict[str, Any]:
    """Return what an earlier run of the seed has come to."""
    fresh = {"seed": seed, "inputs": 0, "slowest_s": 0.0, "more_mib": 0.0, "told": {}}
    found: dict[str, Any] = read_json(RESULT) if RESULT.exists() else fresh
    return found if found["seed"] == seed else fresh


def main() -> None:
    """Run the inputs that are left, and keep what became of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        kinds = originals(Path(folder))
    state = begun(options.seed)
    told = Counter(state["told"])
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(state["inputs"], options.count):
        began = time.process_time()
        faulthandler.dump_traceback_later(MINUTE, exit=True)
        try:
            told[run_one(kinds, number, options.seed)] += 1
        except BaseException:
            print(f"input {number} of seed {options.seed}")
            raise
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        state["inputs"] = number + 1
        state["told"] = dict(sorted(told.items()))
        took = time.process_time() - began
        state["slowest_s"] = round(max(state["slowest_s"], took), 3)
        state["more_mib"] = round(max(state["more_mib"], (peak - start) / 1024), 1)
        if state["slowest_s"] > SECONDS or state["more_mib"] > MEBIBYTES:
            raise SystemExit(f"input {number} takes too much: {state}")
        if (number + 1) % SAVED_EVERY == 0 or number + 1 == options.count:
            write_json(RESULT, state)
    faulthandler.cancel_dump_traceback_later()
    print(*(f"{kind:<24} {count}" for kind, count in state["told"].items()), sep="\n")
    print(f"{state['inputs']} inputs, slowest {state['slowest_s']} s of computing")


if __name__ == "__main__":
    main()
