"""What a plan takes, reckoned from one volume that was drawn."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ctflow_fed.augment.settings import GenerateSettings

if TYPE_CHECKING:
    from ctflow_fed.augment.planning import Plan

__all__ = ["Cost", "probe"]


@dataclass(frozen=True)
class Cost:
    """What one volume took: of so many slices, on a device, in seconds and bytes."""

    slices: int
    device: str
    seconds: float
    bytes: int

    def told(self, slices: int) -> str:
        """Return in a sentence what so many slices take."""
        share = slices / self.slices
        return (
            f"about {_duration(share * self.seconds)} of one device and "
            f"{_size(share * self.bytes)} of disk, reckoned from a volume of "
            f"{self.slices} slices drawn here on {self.device} in {self.seconds:.1f} s"
        )


def probe(
    plan: "Plan", *, model: Path | str, settings: GenerateSettings | None = None
) -> Cost:
    """Draw one volume of a plan, write it, measure both, and throw it away.

    ``model`` is as in `generate`. The volume is drawn after a shorter one, because the
    first volume of a process takes longer.
    """
    from ctflow_fed.augment.worker import load_sampler
    from ctflow_fed.ct.nifti import write_nifti
    from ctflow_fed.model import package_folder
    from ctflow_fed.sampling import VolumeRequest

    settings = settings or GenerateSettings()
    sampler, _ = load_sampler(package_folder(model), settings)
    chosen = sorted(plan.requests, key=lambda each: each.slices)[len(plan) // 2]
    sampler.sample([VolumeRequest(report=chosen.report, slices=1, seed=0)])
    began = time.perf_counter()
    asked = VolumeRequest(
        report=chosen.report,
        slices=chosen.slices,
        seed=chosen.seed,
        slice_mm=chosen.slice_mm,
    )
    (volume,) = sampler.sample([asked])
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "volume.nii.gz"
        write_nifti(volume, image)
        seconds, size = time.perf_counter() - began, image.stat().st_size
    seconds *= settings.candidates  # so many are drawn for each that is kept
    return Cost(chosen.slices, sampler.device.type, seconds, size)


def _duration(seconds: float) -> str:
    """Return a time in the unit that people would take."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def _size(count: float) -> str:
    """Return a number of bytes in the unit that people would take."""
    for unit, length in (("TB", 1e12), ("GB", 1e9)):
        if count >= length:
            return f"{count / length:.1f} {unit}"
    return f"{count / 1e6:.1f} MB"
