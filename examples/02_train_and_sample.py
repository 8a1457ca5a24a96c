"""Teach a small network eight phantom chests, then draw a new one from a report.

About a minute on one CPU core. The volume is a NIfTI file that any viewer opens; after
so little training it is a blurred chest, no more.

    python examples/02_train_and_sample.py --out runs/example
"""

import argparse
from dataclasses import replace
from pathlib import Path

from ctflow_fed.ct.codec import HaarCodec
from ctflow_fed.ct.intake import IntakeSettings, intake
from ctflow_fed.ct.nifti import write_nifti
from ctflow_fed.ct.phantom import HOSPITALS, write_studies
from ctflow_fed.ct.policy import IntakePolicy
from ctflow_fed.ct.report import HashingReportEncoder
from ctflow_fed.ct.store import LatentStore
from ctflow_fed.model import load_package, start_network
from ctflow_fed.sampling import VolumeRequest, VolumeSampler
from ctflow_fed.training import TrainSettings, train


def main() -> None:
    """Write phantoms, take them in, train, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/example"))
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    scans, site = options.out / "scans", options.out / "site"

    scanner = HOSPITALS["north"].scanner.resized(slices=32, rows=64)
    write_studies(scans, replace(HOSPITALS["north"], scanner=scanner), count=8, seed=0)
    phantoms_too = IntakePolicy(synthetic="accept")
    settings = IntakeSettings(image_size=64, policy=phantoms_too)
    intake(scans, scans / "reports.csv", site, settings)

    network, _ = start_network("nano", init=None, seed=0)
    model = train(
        network,
        LatentStore.open(site),
        options.out / "run",
        TrainSettings(batch_clips=4, learning_rate=2e-3),
        steps=options.steps,
        seed=0,
    )

    sampler = VolumeSampler(load_package(model), HaarCodec(), HashingReportEncoder())
    request = VolumeRequest(report="Right pleural effusion.", slices=32, seed=0)
    (volume,) = sampler.sample([request])
    write_nifti(volume, options.out / "drawn.nii.gz", description="SYNTHETIC")
    print(f"wrote {options.out / 'drawn.nii.gz'}, {volume.hu.shape} voxels")


if __name__ == "__main__":
    main()
