"""How long one step of training and one drawn volume take, and how much memory.

    python benchmarks/speed.py

Every preset that fits a CPU in reasonable time, at 64 x 64 pixels (latents of 16 x 16)
with the embedded codec, on all cores. Seconds are the median of several runs.
"""

import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from base_model import IMAGE_SIZE, public_store

from ctflow_fed.ct.codec import HaarCodec
from ctflow_fed.ct.report import HashingReportEncoder
from ctflow_fed.ct.store import LatentStore
from ctflow_fed.model import ModelPackage, start_network
from ctflow_fed.sampling import VolumeRequest, VolumeSampler
from ctflow_fed.training import TrainSettings, describe, fit

PRESETS = ("nano", "tiny")
REPEATS = 3


def main() -> None:
    """Print one line a preset."""
    print(f"{torch.get_num_threads()} threads, {IMAGE_SIZE} x {IMAGE_SIZE} pixels")
    print("preset | s / step of 8 clips | s / volume of 32 slices, 12 Heun steps")
    with tempfile.TemporaryDirectory() as folder:
        store = public_store(Path(folder), {32: 4}, seed=0)
        for preset in PRESETS:
            step, volume = measure(preset, store)
            print(f"{preset:6} | {step:.2f} | {volume:.2f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory {peak:.0f} MB")


def measure(preset: str, store: LatentStore) -> tuple[float, float]:
    """Return the seconds of a step of training and of a drawn volume."""
    network, _ = start_network(preset, init=None, seed=0)
    steps = seconds(lambda: fit(network, store, TrainSettings(), steps=2, seed=0))
    package = ModelPackage(network, describe(store, steps=2, seed=0), "")
    sampler = VolumeSampler(package, HaarCodec(), HashingReportEncoder())
    request = VolumeRequest(report="Pleural effusion.", slices=32, seed=0)
    return steps / 2, seconds(lambda: sampler.sample([request]))


def seconds(work: Callable[[], object]) -> float:
    """Return the median time of some runs after a first one."""
    work()
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


if __name__ == "__main__":
    main()
