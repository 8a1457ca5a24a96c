"""Training on one machine, without a federation."""

import json
import logging
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

from tqdm import tqdm

from ctflow_fed.ct.store import LatentStore
from ctflow_fed.errors import MismatchError, SettingsError
from ctflow_fed.files import digest_of, write_text
from ctflow_fed.model import (
    FMvT,
    ModelPackage,
    default_device,
    save_package,
)
from ctflow_fed.training.adapters import (
    changes_of,
    load_adapter,
    save_adapter,
    with_adapter,
)
from ctflow_fed.training.checkpoint import TrainState, restore, save_state
from ctflow_fed.training.fit import check_origin, check_store
from ctflow_fed.training.merge import Adapter, AdapterSettings
from ctflow_fed.training.optimizer import optimizer_of
from ctflow_fed.training.prefetch import drawn_ahead
from ctflow_fed.training.provenance import describe
from ctflow_fed.training.settings import TrainSettings
from ctflow_fed.training.step import (
    step_generator,
    train_step,
    trained_weights,
)
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
    adapter: AdapterSettings | None = None,
) -> Path:
    """Train ``network`` up to ``steps`` steps and return the folder of the model.

    ``out`` gets ``checkpoint.safetensors``, ``train.jsonl`` (one line a step) and, in
    the end, ``model/``, the package of the averaged weights. ``parent`` is the package
    that ``network`` comes from, if any; it must have been trained with the codec and
    the report encoder of the store. With ``adapter``, only an adapter of ``parent`` is
    trained; ``out`` gets it as ``adapter/`` too, and ``model/`` is ``parent`` with it
    merged. A run that was killed goes on with the same command and ends, on the same
    CPU, with the weights of an unbroken run; it goes on when ``steps`` is raised.
    """
    check_store(network, store)
    if parent is not None:
        check_origin(parent.provenance, store.header)
    job = _job(network, store, settings, seed, adapter)
    trained = network if adapter is None else _adapted(network, parent, adapter, seed)
    state = _begin(trained.to(default_device()), settings)
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

    digest = parent.digest if parent is not None else ""
    provenance = describe(
        store, steps=steps, seed=seed, parent=digest, method=settings.method
    )
    if adapter is not None and parent is not None:
        changes = changes_of(state.average, network)
        save_adapter(out / "adapter", Adapter(adapter, digest, changes, provenance))
        averaged = load_adapter(parent, out / "adapter").network
    else:
        averaged = FMvT(network.config)
        averaged.load_state_dict(state.average)
    save_package(out / "model", averaged, provenance)
    return out / "model"


def _adapted(
    network: FMvT, parent: ModelPackage | None, adapter: AdapterSettings, seed: int
) -> FMvT:
    """Return the network of a package with an adapter to be trained."""
    if parent is None or parent.network is not network:
        raise SettingsError(
            "an adapter is trained for a model package that is there already; name it "
            "with --init, or leave out the rank to train a whole network"
        )
    return with_adapter(network, adapter, seed)


def _job(
    network: FMvT,
    store: LatentStore,
    settings: TrainSettings,
    seed: int,
    adapter: AdapterSettings | None,
) -> str:
    """Name everything that the weights of a run depend on."""
    adapted = {} if adapter is None else {"adapter": asdict(adapter)}
    return digest_of(
        {
            **adapted,
            "settings": asdict(settings),
            "seed": seed,
            "network": asdict(network.config),
            "start": weights_digest(network.state_dict()),
            "studies": [record.sha256 for record in store.records],
            "header": asdict(store.header),
        }
    )


def _begin(network: FMvT, settings: TrainSettings) -> TrainState:
    weights = trained_weights(network)
    average = {name: value.detach().clone() for name, value in weights.items()}
    return TrainState(network.train(), optimizer_of(weights, settings), average)


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
    saved, weights = time.monotonic(), store.channel_weights
    left = range(state.step, steps)
    batches = drawn_ahead(store, settings, left, partial(step_generator, seed, 0, ""))
    bar = tqdm(total=steps, initial=state.step, desc="train", unit="step", disable=None)
    with bar, (out / "train.jsonl").open("a", encoding="utf-8") as lines:
        for drawn in batches:
            loss = train_step(state.network, state.optimizer, drawn, weights, settings)
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
    write_text(path, "".join(lines))
