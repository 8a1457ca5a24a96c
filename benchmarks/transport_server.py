"""What the server's part of a round takes of memory and of the CPU, in one process.

    python benchmarks/transport_server.py FOLDER PRESET SITES

The changes of all sites, as int8 in shards, are taken in, checked and averaged; then
the model is saved. It prints JSON: the most MB that the process had until the average
was there, and until the model was saved, and the seconds of the CPU for both.
"""

import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctflow_fed.federation import (
    FederationSettings,
    check_change,
    moved_by,
    open_job,
    packed,
    stow,
    unstow,
)
from ctflow_fed.federation.arrays import PiecedArrays, Run
from ctflow_fed.model import Provenance

PRECISION, LENGTH = "int8", 1e-3


def main() -> None:
    """Measure a round of so many sites."""
    folder, preset, sites = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    names = tuple(f"site{number}" for number in range(sites))
    settings = FederationSettings(
        out=str(folder / "job"), sites=names, preset=preset, precision=PRECISION
    )
    job, began = open_job(settings), time.process_time()
    Path("/proc/self/clear_refs").write_text("5")  # peaks count from here
    start, manifest = job.state.weights, job.part.manifest
    length = job.part.length(start)
    largest = max(int(np.prod(shape)) for shape in manifest.values())
    noise = np.random.default_rng(0).standard_normal(largest).astype(np.float32)

    def change(run: Run) -> NDArray[np.float32]:
        return np.asarray(LENGTH * noise[run.span])

    pieces = packed(PiecedArrays(manifest, change), manifest, PRECISION)
    cargo = stow(pieces, manifest, PRECISION, folder / "outbox")
    updates = {}
    for site in names:
        place = job.depot.folder / "up" / site
        place.mkdir(parents=True)
        for number, shard in enumerate(cargo):
            shutil.copyfile(folder / "outbox" / shard.digest, place / f"{number:02d}")
        taken = job.depot.take(cargo, site)
        sent = unstow(cargo, manifest, PRECISION, taken)
        check_change(sent, length)
        updates[site] = moved_by(start, sent)
    job.advance(updates, dict.fromkeys(names, 100))
    averaging = most_megabytes()
    job.save(folder / "model", PROVENANCE)
    measured = {
        "averaging_mb": averaging,
        "saving_mb": most_megabytes(),
        "cpu_seconds": round(time.process_time() - began, 1),
    }
    print(json.dumps(measured))
    shutil.rmtree(folder)


def most_megabytes() -> int:
    """Return the most that this process has had, as the kernel tells it."""
    said = Path("/proc/self/status").read_text().partition("VmHWM:")[2]
    return round(int(said.split()[0]) * 1024 / 1e6)


PROVENANCE = Provenance(
    codec_id="",
    encoder_id="",
    latent_size=(8, 8),
    slices=16,
    spacing=(1.0, 1.0, 1.0),
    steps=1,
    seed=0,
)

if __name__ == "__main__":
    main()
