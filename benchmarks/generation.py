"""A faithful CTFlow against ours, at equal parameters, clips and optimiser steps.

    python benchmarks/generation.py --out runs/generation

Phantoms of 64 x 64 pixels and 48 slices, the embedded codec, preset tiny. Both are
trained from scratch; then each draws volumes from held-out reports, and a reader that
has seen only real phantoms says what is in them. Every stage resumes: the same command
goes on where it was stopped, and a larger ``--steps`` or ``--volumes`` adds to what is
there. It writes ``results.json``, ``results.svg`` and pictures.

``ctflow`` is the paper: the released layout, one report token, the clip below as
context, StartBoost, uniform times, AdamW, the number of slices as words, 200 Euler
steps in float32. It has neither the paper's noise offset, which would only hurt it, nor
its slow decay of the learning rate, and weighs channels as ours does. ``ours`` is what
`ctflow train` and `ctflow sample` do. ``ours-200`` are the weights of ours with 200
Euler steps, for the first half of the reports; ``ours-half`` is ``ours`` for the same
ones. ``base`` is the base model that is shipped, which was trained for longer
(`make base-model`). Seconds are those of one volume drawn by itself,
and do not depend on training: ``--arms ctflow ours --steps 2 --volumes 4`` compares
them within minutes.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from measures import (
    aurocs,
    drift,
    height_profile,
)
from phantoms import (
    CODEC,
    OneTokenEncoder,
    Patient,
    patients,
    public_store,
)
from pictures import plot, save_pairs, save_samples
from recipes import train_ctflow, train_ours
from tqdm import tqdm

from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.ct.phantom import compose
from ctflow_fed.ct.report import HashingReportEncoder, ReportEncoder
from ctflow_fed.ct.store import LatentStore
from ctflow_fed.evaluation.alignment import consistency_index, movement
from ctflow_fed.evaluation.distances import frechet_distance, kernel_distance
from ctflow_fed.evaluation.drift.seams import seam_ratio
from ctflow_fed.files import write_atomically, write_json
from ctflow_fed.model import FMvT, load_package, package_folder
from ctflow_fed.reader import Reader
from ctflow_fed.reader.calibration import READABLE
from ctflow_fed.sampling import SampleSettings, VolumeRequest, VolumeSampler
from ctflow_fed.seeds import derive_seed
from ctflow_fed.shapes import HU

SLICES = 48
READER_STUDIES = 640
REAL_STUDIES = 192
AT_ONCE = 4
TURNS = 3
"""How often a volume is drawn for its seconds, of which the median counts."""

PAIRS = 6
"""Pairs of reports with and without a finding."""


@dataclass(frozen=True)
class Arm:
    """A way to train and to draw."""

    training: str
    encoder: ReportEncoder
    sampling: SampleSettings


EULER_200 = {"steps": 200, "solver": "euler", "precision": "float32"}
OURS = SampleSettings()
ARMS = {
    "ctflow": Arm(
        "ctflow", OneTokenEncoder(), SampleSettings(**EULER_200, time_shift=1.0)
    ),
    "ours": Arm("ours", HashingReportEncoder(), OURS),
    "ours-200": Arm("ours", HashingReportEncoder(), replace(OURS, **EULER_200)),
    "base": Arm("base", HashingReportEncoder(), OURS),
}


def main() -> None:
    """Run every stage."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/generation"))
    parser.add_argument("--steps", type=int, default=4000, help="optimiser steps")
    parser.add_argument("--volumes", type=int, default=64, help="volumes of an arm")
    parser.add_argument("--seeds", type=int, default=1, help="repeats of training")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    options = parser.parse_args()

    if not 4 <= options.volumes <= REAL_STUDIES // 2:
        parser.error(
            f"volumes must be 4 to {REAL_STUDIES // 2}, for real ones to match"
        )
    bench = Bench(options.out, options.steps, options.volumes)
    results = [bench.run(seed, options.arms) for seed in range(options.seeds)]
    settings = {"steps": options.steps, "volumes": options.volumes, "slices": SLICES}
    write_json(options.out / "results.json", {"settings": settings, "seeds": results})
    plot(results, options.out / "results.svg")
    print(json.dumps(results, indent=2))


class Bench:
    """The stages, each of which goes on from what it finds in the folder."""

    def __init__(self, out: Path, steps: int, volumes: int) -> None:
        self.out, self.steps, self.volumes = out, steps, volumes
        real = public_store(out / "real", {SLICES: REAL_STUDIES}, seed=4001)
        self.patients = list(patients({SLICES: REAL_STUDIES}, seed=4001))
        self.real = _volumes(real, self.patients)
        self.truth = np.array([each.labels for each in self.patients])
        self.reader = self._reader()
        self.real_logits, self.real_features = self._read(self.real)
        self.readable = aurocs(self.real_logits, self.truth)

    def run(self, seed: int, arms: list[str]) -> dict[str, object]:
        """Train, draw and measure with one seed."""
        result: dict[str, object] = {"seed": seed, "real": self._reference()}
        for name in arms:
            sampler = self._sampler(ARMS[name], seed)
            count = self.volumes // (2 if name == "ours-200" else 1)
            drawn = self._drawn(name, sampler, seed, count)
            result[name] = {
                **self._measured(drawn),
                **self._cost(name, sampler, seed),
                "parameters": _parameters(sampler.network),
            }
            if name in ("ours", "base"):
                result[f"control-{name}"] = self._control(name, sampler, seed)
            if name == "ours":
                result["ours-half"] = self._measured(drawn[: self.volumes // 2])
            save_samples(drawn[:10], self.out / f"samples-{name}-{seed}.png")
        save_samples(self.real[:10], self.out / "samples-real.png")
        return result

    def _reader(self) -> Reader:
        reader, path = Reader(), self.out / "reader.safetensors"
        if not path.exists():
            known = list(patients({SLICES: READER_STUDIES}, seed=3001))
            store = public_store(self.out / "reader", {SLICES: READER_STUDIES}, 3001)
            labels = np.array([each.labels for each in known])
            reader.train(_volumes(store, known), labels, steps=700)
            reader.save(path)
        reader.load(path)
        return reader

    def _read(self, volumes: list[HU]) -> tuple[np.ndarray, np.ndarray]:
        """Return logits, and features in double precision, as distances want them."""
        logits, features = self.reader.read(volumes)
        return logits, features.astype(np.float64)

    def _sampler(self, arm: Arm, seed: int) -> VolumeSampler:
        """Train an arm up to the steps, or go on, and load what came out."""
        if arm.training == "base":
            model = package_folder("base")
        else:
            recipe = train_ctflow if arm.training == "ctflow" else train_ours
            model = recipe(self.out, preset="tiny", steps=self.steps, seed=seed)
        return VolumeSampler(load_package(model), CODEC, arm.encoder, arm.sampling)

    def _drawn(
        self, name: str, sampler: VolumeSampler, seed: int, count: int
    ) -> list[HU]:
        """Draw a volume for each of the first held-out reports."""
        folder = self.out / f"drawn-{name}-{seed}-{self.steps}"
        told = f" Length: {SLICES}." if name == "ctflow" else ""
        asked = [
            VolumeRequest(report=each.report + told, slices=SLICES, seed=number)
            for number, each in enumerate(self.patients[:count])
        ]
        return _kept(folder, asked, sampler)

    def _cost(self, name: str, sampler: VolumeSampler, seed: int) -> dict[str, float]:
        """Draw one volume by itself; return its seconds and evaluations of a clip."""
        path = self.out / f"cost-{name}-{seed}-{self.steps}.json"
        if not path.exists():
            evaluated: list[int] = []
            hook = sampler.network.register_forward_hook(
                lambda _, inputs, __: evaluated.append(inputs[0][:, 0, :, 0, 0].numel())
            )
            report = self.patients[0].report
            asked = VolumeRequest(report=report, slices=SLICES, seed=0)
            times, slices = [], 0
            for _ in range(TURNS):
                began = time.perf_counter()
                (volume,) = sampler.sample([asked])
                times.append(time.perf_counter() - began)
                slices += -(-len(volume.hu) // 16) * 16
            hook.remove()
            evaluations = sum(evaluated) / slices
            cost = {"seconds": statistics.median(times), "evaluations": evaluations}
            write_json(path, cost)
        cost = json.loads(path.read_text())
        return {key: float(cost[key]) for key in ("seconds", "evaluations")}

    def _floor(self, n: int) -> float:
        """Return the distance of n real volumes from n others."""
        return frechet_distance(self.real_features[:n], self.real_features[-n:])

    def _reference(self) -> dict[str, object]:
        """Measure real volumes as synthetic ones are: the floor and the ceiling."""
        n = self.volumes
        logits, features = self.real_logits, self.real_features
        shuffled = np.random.default_rng(0).permutation(n)
        return {
            "fd": self._floor(n),
            "kid": kernel_distance(features[:n], features[-n:]),
            "auroc": self.readable,
            "auroc_same_reports": aurocs(logits[:n], self.truth[:n]),
            "auroc_shuffled": aurocs(logits[:n][shuffled], self.truth[:n]),
            "seam_ratio": seam_ratio(self.real[:n], self.real[-n:]),
        }

    def _measured(self, drawn: list[HU]) -> dict[str, object]:
        """Measure volumes against as many real ones that have other reports."""
        n = len(drawn)
        logits, features = self._read(drawn)
        found = aurocs(logits, self.truth[:n])
        ceiling = {k: v for k, v in self.readable.items() if k in found}
        index, names = consistency_index(found, ceiling)
        counts = [len(volume) - SLICES for volume in drawn]
        fd = frechet_distance(features, self.real_features[-n:])
        return {
            "fd": fd,
            "fd_above_floor": fd - self._floor(n),
            "kid": kernel_distance(features, self.real_features[-n:]),
            "alignment": index,
            "readable": names,
            "auroc": found,
            "slices_exact": float(np.mean([count == 0 for count in counts])),
            "slices_error": float(np.mean(np.abs(counts))),
            "seam_ratio": seam_ratio(drawn, self.real),
            "drift": drift(height_profile(drawn), height_profile(self.real)),
        }

    def _control(self, arm: str, sampler: VolumeSampler, seed: int) -> dict[str, float]:
        """Draw pairs with one seed and a finding that only one of the reports has."""
        names = [name for name, value in self.readable.items() if value >= READABLE]
        folder = self.out / f"pairs-{arm}-{seed}-{self.steps}"
        seeds = [derive_seed("pair", number) for number in range(PAIRS)]
        without = _kept(folder / "none", [_asked({}, s) for s in seeds], sampler)
        spread, result, shown = self.real_logits.std(0), {}, []
        plain = self.reader.read(without)[0]
        for name in names:
            asked = [_asked({name: 1}, s) for s in seeds]
            shows = _kept(folder / name.replace(" ", "-"), asked, sampler)
            logits = self.reader.read(shows)[0]
            place = FINDINGS.index(name)
            result[name] = movement(logits, plain, place, spread)
            shown.append((name, without[0], shows[0]))
        save_pairs(shown, self.out / f"pairs-{arm}-{seed}.png")
        return result


def _asked(labels: dict[str, int], seed: int) -> VolumeRequest:
    text = " ".join(compose(labels, seed))
    return VolumeRequest(report=text, slices=SLICES, seed=seed % 2**32)


def _kept(folder: Path, asked: list[VolumeRequest], sampler: VolumeSampler) -> list[HU]:
    """Draw what the folder lacks, and return all of it."""
    folder.mkdir(parents=True, exist_ok=True)
    lacking = [n for n in range(len(asked)) if not (folder / f"{n}.npy").exists()]
    starts = range(0, len(lacking), AT_ONCE)
    for start in tqdm(starts, desc=folder.name, disable=None):
        numbers = lacking[start : start + AT_ONCE]
        volumes = sampler.sample([asked[number] for number in numbers])
        for number, volume in zip(numbers, volumes, strict=True):
            write_atomically(folder / f"{number}.npy", _saving(volume.hu))
    return [np.load(folder / f"{n}.npy", allow_pickle=False) for n in range(len(asked))]


def _saving(hu: HU) -> Callable[[Path], None]:
    def save(path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, hu, allow_pickle=False)

    return save


def _volumes(store: LatentStore, known: list[Patient]) -> list[HU]:
    """Decode real volumes; the embedded codec loses nothing."""
    volumes = []
    for patient in known:
        latents = store.slices(patient.name, 0, patient.slices)
        volumes.append(CODEC.decode(latents).round().to(torch.int16).numpy())
    return volumes


def _parameters(network: FMvT) -> int:
    return sum(value.numel() for value in network.parameters())


if __name__ == "__main__":
    main()
