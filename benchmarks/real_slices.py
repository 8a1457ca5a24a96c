"""How well a model continues a real CT, and draws slices between those of one.

    python benchmarks/real_slices.py --volume lidc_0314_ds2/ct_binned2x2x2.nii.gz

Of a scan at the model's pixels, and of every fourth slice of it, the eight highest
slices are taken away and drawn, and every second one is. All differences are mean
absolute HU: of the first drawn slice from the last real one below it (beside that of
the real slice in its place), and of slices drawn between real ones from those that were
left out (beside that of the mean of their neighbours).
"""

import argparse
import json
from pathlib import Path

import numpy as np

from ctflow_fed.ct.codec import HaarCodec
from ctflow_fed.ct.nifti import read_nifti
from ctflow_fed.ct.report import HashingReportEncoder
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.model import load_package, package_folder
from ctflow_fed.sampling import VolumeSampler

REPORT = "No abnormality."
ABOVE = 8


def main() -> None:
    """Draw at both spacings, and print the differences."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--volume", type=Path, required=True)
    parser.add_argument("--model", default="base", help="A model package, or base.")
    given = parser.parse_args()
    package = load_package(package_folder(given.model))
    sampler = VolumeSampler(package, HaarCodec(), HashingReportEncoder())
    scan = read_nifti(given.volume).squared(sampler.image_size)
    found = [compared(sampler, every(scan, step)) for step in (1, 4)]
    print(json.dumps(found, indent=2))


def compared(sampler: VolumeSampler, scan: CTVolume) -> dict[str, float]:
    """Take slices away from a scan, draw them, and compare."""
    lower = CTVolume(scan.hu[:-ABOVE], scan.affine)
    taller = sampler.extend(lower, REPORT, below=0, above=ABOVE, seed=0)
    finer = sampler.between(every(scan, 2), REPORT, factor=2, seed=0)
    left_out = scan.hu[1 : len(finer.hu) : 2]
    around = (finer.hu[:-1:2].astype(float) + finer.hu[2::2]) / 2
    first = len(lower.hu)
    return {
        "slice_mm": scan.spacing[0],
        "first_above": apart(taller.hu[first], lower.hu[-1]),
        "real_in_its_place": apart(scan.hu[first], lower.hu[-1]),
        "between": apart(finer.hu[1::2], left_out),
        "mean_of_neighbours": apart(around, left_out),
    }


def every(scan: CTVolume, step: int) -> CTVolume:
    """Return every ``step``-th slice of a scan."""
    affine = scan.affine.copy()
    affine[:3, 0] *= step
    return CTVolume(scan.hu[::step], affine)


def apart(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean absolute difference."""
    return round(float(np.abs(first.astype(float) - second).mean()), 1)


if __name__ == "__main__":
    main()
