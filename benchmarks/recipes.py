"""How the benchmarks train: ours, which is the recipe of the base model, and CTFlow."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from phantoms import TAUGHT, one_token_store, patients, public_store

from ctflow_fed.ct.store import LatentStore
from ctflow_fed.model import PRESETS, fresh_network
from ctflow_fed.training import TrainSettings, train

STUDIES = {32: 200, 48: 800, 64: 200}
"""How many public phantoms of how many slices; each covers the whole chest."""

PATIENTS = 2026
"""The seed of the patients that are trained on."""

RATE = {"learning_rate": 1.5e-3, "warmup_steps": 100}


def training_store(out: Path, studies: Mapping[int, int] = STUDIES) -> LatentStore:
    """Return the store that is trained on; phantoms that are in it stay."""
    return public_store(out / "site", studies, PATIENTS, TAUGHT)


def train_ours(
    out: Path,
    *,
    preset: str,
    steps: int,
    seed: int,
    studies: Mapping[int, int] = STUDIES,
) -> Path:
    """Train what `ctflow train` trains, and return the folder of the model package."""
    return train(
        fresh_network(PRESETS[preset], seed),
        training_store(out, studies),
        out / f"ours-{seed}",
        TrainSettings(**RATE),
        steps=steps,
        seed=seed,
    )


def train_ctflow(out: Path, *, preset: str, steps: int, seed: int) -> Path:
    """Train a faithful CTFlow: its layout, its one report token, its clips."""
    source = training_store(out)
    return train(
        fresh_network(replace(PRESETS[preset], released=True), seed),
        one_token_store(
            out / "site-one", source, list(patients(STUDIES, PATIENTS, TAUGHT))
        ),
        out / f"ctflow-{seed}",
        TrainSettings.ctflow(**RATE),
        steps=steps,
        seed=seed,
    )
