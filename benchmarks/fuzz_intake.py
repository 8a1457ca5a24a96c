"""Mutated DICOM and NIfTI: read or refused, never a crash, a hang or much memory.

    python benchmarks/fuzz_intake.py --count 50000

Each input is a function of the seed and its number. A reader may raise `VolumeError`
alone; anything else, 10 seconds or 512 MiB more end the run with the number.
"""

import argparse
import gzip
import resource
import tempfile
import time
from collections import Counter
from pathlib import Path

import gdcm
import numpy as np

from ctflow_fed.ct.dicom import SeriesTags, read_series, write_series
from ctflow_fed.ct.nifti import read_nifti, write_nifti
from ctflow_fed.ct.phantom.forms import recoded
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.errors import VolumeError

SYNTAXES = {
    "jpeg": gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    "jpeg-ls": gdcm.TransferSyntax.JPEGLSLossless,
    "jpeg-2000": gdcm.TransferSyntax.JPEG2000Lossless,
    "rle": gdcm.TransferSyntax.RLELossless,
}
SECONDS = 10.0
MEBIBYTES = 512


def small_volume() -> CTVolume:
    """Return a ball in air, 3 slices of 16 x 16 pixels."""
    z, y, x = np.ogrid[:3, :16, :16]
    ball = (4 * (z - 1)) ** 2 + (y - 8) ** 2 + (x - 8) ** 2 < 36
    affine = np.diag([2.5, -1.5, -1.5, 1.0])[[2, 1, 0, 3]]
    return CTVolume(np.where(ball, 40, -1000).astype(np.int16), affine)


def originals(folder: Path) -> dict[str, list[bytes]]:
    """Return the files of each kind: a series in each syntax, and a NIfTI."""
    write_series(small_volume(), folder / "plain", seed=0, tags=SeriesTags("SYN-0"))
    plain = sorted((folder / "plain").iterdir())
    kinds = {"plain": [path.read_bytes() for path in plain]}
    for name, syntax in SYNTAXES.items():
        kinds[name] = [recoded(path, syntax) for path in plain]
    write_nifti(small_volume(), folder / "v.nii")
    return kinds | {"nifti": [(folder / "v.nii").read_bytes()]}


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
    with tempfile.TemporaryDirectory() as name:
        files = list(kinds[kind])
        which = int(generator.integers(len(files)))
        files[which] = mutated(files[which], generator)
        read = read_series
        path = Path(name, "series")
        path.mkdir()
        if kind == "nifti":
            read, packed = read_nifti, bool(generator.integers(2))
            path = path / ("v.nii.gz" if packed else "v.nii")
            path.write_bytes(gzip.compress(files[0], 1) if packed else files[0])
        else:
            for index, content in enumerate(files):
                (path / f"{index}.dcm").write_bytes(content)
        before = sorted(Path(name).rglob("*"))
        try:
            read(path)
            verdict = "read"
        except VolumeError:
            verdict = "refused"
        if sorted(Path(name).rglob("*")) != before:
            raise RuntimeError("a reader wrote a file")
    return f"{kind}: {verdict}"


def main() -> None:
    """Run the inputs and print what became of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        kinds = originals(Path(folder))
    told: Counter[str] = Counter()
    slowest, start = 0.0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(options.count):
        began = time.monotonic()
        try:
            told[run_one(kinds, number, options.seed)] += 1
        except BaseException:
            print(f"input {number} of seed {options.seed}")
            raise
        slowest = max(slowest, time.monotonic() - began)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) / 1024
        if slowest > SECONDS or grown > MEBIBYTES:
            raise SystemExit(f"input {number}: {slowest:.1f} s, {grown:.0f} MiB more")
    print(*(f"{kind:<20} {count}" for kind, count in sorted(told.items())), sep="\n")
    print(f"{options.count} inputs, slowest {slowest:.2f} s, {grown:.0f} MiB more")


if __name__ == "__main__":
    main()
