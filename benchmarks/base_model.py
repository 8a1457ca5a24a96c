"""Train the base model that is shipped: preset tiny, on public phantoms.

No patient is in it, so it may go to every hospital of a federation before it begins.
The same command resumes; `make base-model` runs it and puts the package into the wheel.
The weights that are shipped took as many steps, but sentences were hidden from reports
in the last thousand only; the recipe hides them from the start and gives other digits.

    python benchmarks/base_model.py --out runs/base
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from ctflow_fed.ct.codec import HaarCodec, edges_of
from ctflow_fed.ct.phantom import PUBLIC, draw, draw_findings
from ctflow_fed.ct.report import HashingReportEncoder
from ctflow_fed.ct.store import LatentStore, StoreHeader
from ctflow_fed.model import start_network
from ctflow_fed.seeds import derive_seed
from ctflow_fed.training import TrainSettings, evaluate_loss, train

IMAGE_SIZE = 64
STUDIES = {32: 320, 48: 80, 64: 80}
"""How many studies of how many slices; each covers the whole chest."""


def main() -> None:
    """Draw the phantoms, train, and say how well the result does on new ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/base"))
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--steps", type=int, default=3600)
    options = parser.parse_args()

    store = public_store(options.out / "site", STUDIES, seed=2026)
    unseen = public_store(options.out / "unseen", {32: 32}, seed=2027)
    network, _ = start_network(options.preset, init=None, seed=0)
    fresh = evaluate_loss(network, unseen, seed=0)

    began = time.monotonic()
    settings = TrainSettings(learning_rate=1.5e-3, warmup_steps=100)
    train(network, store, options.out / "run", settings, steps=options.steps, seed=0)
    print(f"{time.monotonic() - began:.0f} s; loss on unseen phantoms {fresh:.4f} ->")
    print(f"{evaluate_loss(network, unseen, seed=0):.4f}")


def public_store(folder: Path, studies: dict[int, int], seed: int) -> LatentStore:
    """Take drawn phantoms into a store; those that are in it stay."""
    codec, encoder = HaarCodec(), HashingReportEncoder()
    side = IMAGE_SIZE // codec.factor
    header = StoreHeader(codec.codec_id, encoder.encoder_id, codec.channels, side, side)
    store = LatentStore.create(folder, header, edges_of(codec, IMAGE_SIZE))
    wanted = [(slices, n) for slices, count in studies.items() for n in range(count)]
    for slices, number in tqdm(wanted, desc=folder.name, disable=None):
        study_id = f"public-{slices}-{number:04d}"
        if study_id in store:
            continue
        drawn_seed = derive_seed("base", seed, slices, number)
        scanner = PUBLIC.scanner.resized(slices, IMAGE_SIZE)
        population = replace(PUBLIC, scanner=scanner)
        study = draw(drawn_seed, draw_findings(drawn_seed, population), scanner=scanner)
        store.put(
            study_id,
            codec.encode(torch.from_numpy(study.volume.hu).float()),
            encoder.encode([f"{study.findings} {study.impression}"]).tokens[0],
            spacing=study.volume.spacing,
            labels=study.labels,
        )
    return store


if __name__ == "__main__":
    main()
