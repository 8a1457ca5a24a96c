"""Training on one machine, without a federation."""

import json
import logging
import time
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from ctflow_fed.ct.store import LatentStore
from ctflow_fed.errors import MismatchError
from ctflow_fed.files import digest_of, write_atomically
from ctflow_fed.model import (
    FMvT,
    ModelPackage,
    default_device,
    save_package,
)
from ctflow_fed.training.checkpoint import TrainState, restore, save_state
from ctflow_fed.training.fit import check_origin, check_store
from ctflow_fed.training.provenance import describe
from ctflow_fed.training.settings import TrainSettings
from ctflow_fed.training.step import make_optimizer, step_generator, train_step
from ctflow_fed.weights import weights_digest

__all__ = ["train"]

CHECKPOINT_SECONDS = 30.0
"""A killed run loses at most this much work."""

log = logging.getLogger(__name__)


def train(
    network: FMvT,
    store: LatentStore,
    out: Path,
    settings: TrainSettings,
    *,
    steps: int,
    seed: int,
    parent: ModelPackage | None = None,
) -> Path:
    """Train ``network`` up to ``steps`` steps and return the folder of the model.

    ``out`` gets ``checkpoint.safetensors``, ``train.jsonl`` (one line a step) and, in
    the end, ``model/``, the package of the averaged weights. ``parent`` is the package
    that ``network`` comes from, if any; it must have been trained with the codec and
    the report encoder of the store. A run that was killed goes on with the same command
    and ends, on the same CPU, with the weights of an unbroken run; it goes on when
    ``steps`` is raised.
    """
    check_store(network, store)
    if parent is not None:
        check_origin(parent.provenance, store.header)
    job = _job(network, store, settings, seed)
    state = _begin(network.to(default_device()), settings)
    checkpoint = out / "checkpoint.safetensors"
    if checkpoint.exists():
        restore(checkpoint, state, job)
    if state.step > steps:
        raise MismatchError(
            f"this run is at step {state.step} already; ask for more than that, or "
            "choose another folder"
        )
    _keep_lines(out / "train.jsonl", state.step)
    _run(state, store, settings, steps=steps, seed=seed, job=job, out=out)

    averaged = FMvT(network.config)
    averaged.load_state_dict(state.average)
    digest = parent.digest if parent is not None else ""
    provenance = describe(store, steps=steps, seed=seed, parent=digest)
    save_package(out / "model", averaged, provenance)
    return out / "model"


def _job(network: FMvT, store: LatentStore, settings: TrainSettings, seed: int) -> str:
    """Name everything that the weights of a run depend on."""
    return digest_of(
        {
            "settings": asdict(settings),
            "seed": seed,
            "network": asdict(network.config),
            "start": weights_digest(network.state_dict()),
            "studies": [record.sha256 for record in store.records],
            "header": asdict(store.header),
        }
    )


def _begin(network: FMvT, settings: TrainSettings) -> TrainState:
    average = {
        name: value.detach().clone() for name, value in network.named_parameters()
    }
    return TrainState(network.train(), make_optimizer(network, settings), average)


def _run(
    state: TrainState,
    store: LatentStore,
    settings: TrainSettings,
    *,
    steps: int,
    seed: int,
    job: str,
    out: Path,
) -> None:
    """Take the steps that are left; save the state now and then and in the end."""
    out.mkdir(parents=True, exist_ok=True)
    saved = time.monotonic()
    bar = tqdm(total=steps, initial=state.step, desc="train", unit="step", disable=None)
    with bar, (out / "train.jsonl").open("a", encoding="utf-8") as lines:
        while state.step < steps:
            loss = train_step(
                state.network,
                state.optimizer,
                store,
                settings,
                step=state.step,
                generator=step_generator(seed, 0, "", state.step),
            )
            state.step += 1
            state.update_average(settings.ema_decay)
            lines.write(json.dumps({"step": state.step, "loss": round(loss, 6)}) + "\n")
            bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            bar.update()
            if state.step == steps or time.monotonic() - saved > CHECKPOINT_SECONDS:
                lines.flush()
                save_state(out / "checkpoint.safetensors", state, job)
                saved = time.monotonic()
                log.info("step %d of %d, loss %.4f", state.step, steps, loss)


def _keep_lines(path: Path, step: int) -> None:
    """Drop the log of steps after the checkpoint: they are about to be taken again."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)[:step]
    write_atomically(path, lambda partial: partial.write_text("".join(lines)))
