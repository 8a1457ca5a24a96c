"""A federation of four hospitals against each of them alone and all data in one place.

    python benchmarks/federation.py --out runs/federation

Phantoms of 64 x 64 pixels and 32 slices; the hospitals differ in their patients and in
their scanners. Everybody begins with the shipped base model and takes equally many
steps of equally many clips: a site alone trains as it does in a federation, the pooled
data with as many clips a step as all sites have together. Each is measured on a fifth
hospital that trains nothing: the loss, and for some the alignment of drawn volumes with
their reports, as a reader sees it that was trained on real phantoms.

``fedavg`` runs for real: coordinator and sites are processes with TLS and node
authentication, behind nginx. The others run the same two programs in Flower's local
runtime, which gives the same weights. Every stage resumes: the same command goes on
where it was stopped. It writes ``federation.json`` and ``federation.svg``.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from html import escape
from pathlib import Path

import numpy as np
from hospitals import (
    SLICES,
    can_be_real,
    held_out_store,
    pooled_store,
    run_for_real,
    site_stores,
    volumes_of,
)
from measures import aurocs
from phantoms import CODEC, TAUGHT, patients, public_store
from tqdm import tqdm

from ctflow_fed.ct.report import HashingReportEncoder
from ctflow_fed.ct.store import LatentStore
from ctflow_fed.deployment.local import run_locally
from ctflow_fed.evaluation.alignment import consistency_index
from ctflow_fed.federation import FederationSettings, read_ledger
from ctflow_fed.files import write_atomically, write_json
from ctflow_fed.model import load_package, package_folder, save_package
from ctflow_fed.reader import Reader
from ctflow_fed.sampling import VolumeRequest, VolumeSampler
from ctflow_fed.shapes import HU
from ctflow_fed.training import describe, evaluate_loss, fit

ROUNDS, STEPS, BATCH = 4, 6, 4
STUDIES, TESTED, DRAWN = 16, 48, 32
READER_STUDIES, READER_STEPS = 160, 150
BASE = package_folder("base")

ARMS: dict[str, dict[str, object]] = {
    "fedavg": {},
    "fedprox": {"proximal": 0.1},
    "fedadam": {"strategy": "fedadam"},
    "diloco": {"strategy": "diloco", "optimizer": "kept"},
    "lora": {"adapter_rank": 16, "learning_rate": 1e-3},
    "bfloat16": {"precision": "bfloat16"},
    "int8": {"precision": "int8"},
}
"""What each federation changes of FedAvg with all weights in float32."""

ALIGNED = ("base", "central", "fedavg", "lora")
"""Whose volumes are drawn and read."""


def main() -> None:
    """Run every stage and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/federation"))
    bench = Bench(parser.parse_args().out)
    results = bench.run()
    write_json(bench.out / "federation.json", results)
    plot(results["arms"], bench.out / "federation.svg")
    print(table(results["arms"]))


class Bench:
    """The stages, each of which goes on from what it finds in the folder."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.stores = site_stores(out / "sites", STUDIES)
        self.held_out, self.patients = held_out_store(out / "held-out", TESTED)
        self.settings = FederationSettings(
            out=str(out / "fedavg" / "job"),
            sites=tuple(self.stores),
            init=str(BASE),
            rounds=ROUNDS,
            steps=STEPS,
            batch_clips=BATCH,
            learning_rate=1e-4,
        )

    def run(self) -> dict[str, object]:
        """Train and measure every arm."""
        arms = {"base": self._measured("base", BASE), **dict(self._alone())}
        arms["central"] = self._measured("central", self._central())
        for name in ARMS:
            model = self._federated(name)
            arms[name] = self._measured(name, model) | _traffic(model.parent)
        sizes = {"rounds": ROUNDS, "steps": STEPS, "batch_clips": BATCH}
        sizes |= {"studies": STUDIES, "tested": TESTED, "drawn": DRAWN}
        sizes |= {"slices": SLICES, "real_processes": can_be_real()}
        return {"sizes": sizes, "arms": arms}

    def _alone(self) -> Iterator[tuple[str, dict[str, float]]]:
        for site, path in self.stores.items():
            model = self._fitted(self.out / f"alone-{site}", LatentStore.open(path), 1)
            yield f"{site} alone", self._measured(f"alone-{site}", model)

    def _central(self) -> Path:
        pooled = pooled_store(self.out / "pooled", self.stores, STUDIES)
        return self._fitted(self.out / "central", pooled, len(self.stores))

    def _fitted(self, folder: Path, store: LatentStore, sites: int) -> Path:
        """Train as a site does, with the clips of so many sites in a step."""
        if not (folder / "provenance.json").exists():
            network = load_package(BASE).network
            training = replace(self.settings.training(), batch_clips=sites * BATCH)
            training = replace(training, max_frames=sites * training.max_frames)
            for number in tqdm(range(ROUNDS), desc=folder.name, disable=None):
                fit(
                    network,
                    store,
                    training,
                    steps=STEPS,
                    seed=0,
                    round_number=number + 1,
                    site=folder.name.removeprefix("alone-"),
                )
            provenance = describe(store, steps=ROUNDS * STEPS, seed=0)
            folder.mkdir(exist_ok=True)
            save_package(folder, network, provenance)
        return folder

    def _federated(self, name: str) -> Path:
        """Play the job of an arm, or what is left of it."""
        folder = self.out / name
        job = replace(self.settings, out=str(folder / "job"), **ARMS[name])
        if name == "fedavg" and can_be_real():
            if not (folder / "job" / "model").exists():
                folder.mkdir(exist_ok=True)
                run_for_real(folder.resolve(), self.stores, _words(job))
        else:
            run_locally(job, self.stores, lambda record: None)
        return folder / "job" / "model"

    def _measured(self, name: str, model: Path) -> dict[str, float]:
        """Measure a model on the hospital that trains nothing."""
        path = self.out / f"measured-{name}.json"
        if not path.exists():
            network = load_package(model).network
            result = {"loss": evaluate_loss(network, self.held_out, seed=0)}
            if name in ALIGNED:
                result["alignment"] = self._alignment(name, model)
            write_json(path, result)
        measured: dict[str, float] = json.loads(path.read_text())
        return measured

    def _alignment(self, name: str, model: Path) -> float:
        """Return how well volumes that are drawn from held-out reports follow them."""
        reader = self._reader()
        truth = np.array([each.labels for each in self.patients])
        real = aurocs(reader.read(volumes_of(self.held_out, self.patients))[0], truth)
        drawn = self._drawn(self.out / f"drawn-{name}", model)
        found = aurocs(reader.read(drawn)[0], truth[:DRAWN])
        index, names = consistency_index(
            found, {k: v for k, v in real.items() if k in found}
        )
        print(f"{name}: alignment {index:.3f} over {', '.join(names)}")
        return index

    def _drawn(self, folder: Path, model: Path) -> list[HU]:
        folder.mkdir(exist_ok=True)
        sampler = VolumeSampler(load_package(model), CODEC, HashingReportEncoder())
        for number in tqdm(range(DRAWN), desc=folder.name, disable=None):
            path = folder / f"{number}.npy"
            if not path.exists():
                report = self.patients[number].report
                asked = VolumeRequest(report=report, slices=SLICES, seed=number)
                (volume,) = sampler.sample([asked])
                write_atomically(path, partial(np.save, arr=volume.hu))
        return [np.load(folder / f"{number}.npy") for number in range(DRAWN)]

    def _reader(self) -> Reader:
        reader, path = Reader(), self.out / "reader.safetensors"
        if not path.exists():
            counts = {SLICES: READER_STUDIES}
            known = list(patients(counts, 3001, TAUGHT))
            store = public_store(self.out / "reader", counts, 3001, TAUGHT)
            labels = np.array([each.labels for each in known])
            reader.train(volumes_of(store, known), labels, steps=READER_STEPS)
            reader.save(path)
        reader.load(path)
        return reader


def _traffic(job: Path) -> dict[str, float]:
    """Return megabytes a round and seconds of a job, but those of its first round."""
    later = read_ledger(job).records[1:]
    return {
        "megabytes_a_round": sum(each.bytes for each in later) / len(later) / 1e6,
        "seconds_a_round": sum(each.seconds for each in later) / len(later),
    }


def _words(job: FederationSettings) -> list[str]:
    """Return the options of `ctflow federation run` that make this job."""
    usual, words = FederationSettings(out="job", sites=("site",)), []
    for key, value in asdict(job).items():
        if key not in {"out", "sites"} and value != getattr(usual, key):
            words += [f"--{key.replace('_', '-')}", str(value)]
    return words


def table(arms: Mapping[str, Mapping[str, float]]) -> str:
    """Return the results as Markdown."""
    lines = [
        "| trained | loss elsewhere | alignment | MB a round | s a round |",
        "|---|---|---|---|---|",
    ]
    keys = ("alignment", "megabytes_a_round", "seconds_a_round")
    for name, each in arms.items():
        cells = [f"{each[key]:.2f}" if key in each else "" for key in keys]
        lines.append(f"| {name} | {each['loss']:.4f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(arms: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """Draw the loss on the fifth hospital as points; less is better."""
    losses = {name: each["loss"] for name, each in arms.items()}
    low, high = min(losses.values()), max(losses.values())
    body = []
    for row, (name, loss) in enumerate(losses.items()):
        y, x = 30 + 24 * row, 170 + 380 * (loss - low) / max(high - low, 1e-9)
        colour = "#06c" if name in ARMS else "#888"
        body.append(
            f'<text x="150" y="{y + 4}" text-anchor="end">{escape(name)}</text>'
            f'<circle cx="{x:.1f}" cy="{y}" r="5" fill="{colour}"/>'
            f'<text x="{x + 10:.1f}" y="{y + 4}">{loss:.4f}</text>'
        )
    height = 30 + 24 * len(losses)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="640" height="{height}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" '
        f'fill="#fff"/>{"".join(body)}</svg>\n'
    )


if __name__ == "__main__":
    main()
