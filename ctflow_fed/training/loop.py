"""Training on one machine, without a federation."""

import json
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from ctflow_fed.ct.store import LatentStore
from ctflow_fed.errors import MismatchError, SettingsError, StoreError
from ctflow_fed.files import digest_of, write_text
from ctflow_fed.model import (
    FMvT,
    ModelPackage,
    default_device,
    save_package,
)
from ctflow_fed.training.adapters import (
    adapter_weights,
    changes_of,
    down_matrices,
    load_adapter,
    save_adapter,
    up_matrices,
    with_adapter,
    with_up_matrices,
    zero_changes,
)
from ctflow_fed.training.checkpoint import TrainState, restore, save_state
from ctflow_fed.training.fit import check_origin, check_store
from ctflow_fed.training.merge import Adapter, AdapterSettings
from ctflow_fed.training.optimizer import optimizer_of
from ctflow_fed.training.prefetch import drawn_ahead
from ctflow_fed.training.privacy_ledger import PrivacyLedger
from ctflow_fed.training.private import PatientDraws, private_steps
from ctflow_fed.training.provenance import describe
from ctflow_fed.training.settings import PrivacySettings, TrainSettings
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


def train(  # noqa: PLR0913 - each is a choice of its own
    network: FMvT,
    store: LatentStore,
    out: Path,
    settings: TrainSettings,
    *,
    steps: int,
    seed: int,
    parent: ModelPackage | None = None,
    adapter: AdapterSettings | None = None,
    privacy: PrivacySettings | None = None,
) -> Path:
    """Train ``network`` up to ``steps`` steps and return the folder of the model.

    ``out`` gets ``checkpoint.safetensors``, ``train.jsonl`` (one line a step) and, in
    the end, ``model/``, the package of the averaged weights. ``parent`` is the package
    that ``network`` comes from, if any; it must have been trained with the codec and
    the report encoder of the store. With ``adapter``, only an adapter of ``parent`` is
    trained; ``out`` gets it as ``adapter/`` too, and ``model/`` is ``parent`` with it
    merged. A run that was killed goes on with the same command and ends, on the same
    CPU, with the weights of an unbroken run; it goes on when ``steps`` is raised.

    With ``privacy``, the B matrices of an adapter are trained by DP-SGD; ``out`` gets
    ``privacy.json``, the ledger, and training ends where the budget does. A run that
    was killed goes on without ever counting less than it spent, but with other noise.
    """
    check_store(network, store)
    if parent is not None:
        check_origin(parent.provenance, store.header)
    job = _job(network, store, settings, seed, adapter, privacy)
    ledger = _ledger(out, adapter, privacy)
    trained = network
    if adapter is not None:
        private = ledger is not None
        trained = _adapted(network, parent, adapter, seed, private=private)
    state = _begin(trained.to(default_device()), settings)
    checkpoint = out / "checkpoint.safetensors"
    if checkpoint.exists():
        restore(checkpoint, state, job)
    _check_step(state.step, steps, ledger)
    _keep_lines(out / "train.jsonl", state.step)
    losses = _losses(state, store, settings, range(state.step, steps), seed, ledger)
    _run(state, losses, settings, steps=steps, job=job, out=out)

    digest = parent.digest if parent is not None else ""
    provenance = describe(
        store, steps=state.step, seed=seed, parent=digest, method=settings.method
    )
    if ledger is not None:
        spent, delta = ledger.epsilon(), ledger.settings.delta
        provenance = replace(provenance, epsilon=spent, delta=delta)
    if adapter is not None and parent is not None:
        weights = adapter_weights(state.network) | state.average
        changes = changes_of(weights, network.state_dict())
        save_adapter(out / "adapter", Adapter(adapter, digest, changes, provenance))
        averaged = load_adapter(parent, out / "adapter").network
    else:
        averaged = FMvT(network.config)
        averaged.load_state_dict(state.average)
    save_package(out / "model", averaged, provenance)
    return out / "model"


def _check_step(step: int, steps: int, ledger: PrivacyLedger | None) -> None:
    """Refuse to go back, and to go on from steps that the ledger does not know."""
    if step > steps:
        raise MismatchError(
            f"this run is at step {step} already; ask for more than that, or "
            "choose another folder"
        )
    if ledger is not None and ledger.steps < step:
        raise StoreError(
            f"expected a ledger of {step} noisy steps in privacy.json, found "
            f"{ledger.steps}; restore it, or begin in a new folder"
        )


def _adapted(
    network: FMvT,
    parent: ModelPackage | None,
    adapter: AdapterSettings,
    seed: int,
    *,
    private: bool,
) -> FMvT:
    """Return the network of a package with an adapter to be trained."""
    if parent is None or parent.network is not network:
        raise SettingsError(
            "an adapter is trained for a model package that is there already; name it "
            "with --init, or leave out the rank to train a whole network"
        )
    if not private:
        return with_adapter(network, adapter, seed)
    down = down_matrices(network, adapter.rank, seed)
    changes = {**down, **zero_changes(network, adapter.rank)}
    trained = up_matrices(network, adapter.rank)
    return with_up_matrices(network, adapter, changes, trained)


def _ledger(
    out: Path, adapter: AdapterSettings | None, privacy: PrivacySettings | None
) -> PrivacyLedger | None:
    """Open the ledger of a private run."""
    if privacy is None:
        return None
    if adapter is None:
        raise SettingsError(
            "private training needs an adapter, because noise grows with the number of "
            "weights; give its rank with --adapter-rank"
        )
    return PrivacyLedger(out / "privacy.json", privacy)


def _job(
    network: FMvT,
    store: LatentStore,
    settings: TrainSettings,
    seed: int,
    adapter: AdapterSettings | None,
    privacy: PrivacySettings | None,
) -> str:
    """Name everything that the weights of a run depend on.

    The budget of a private run is none of it: it may be raised, as steps may.
    """
    adapted = {} if adapter is None else {"adapter": asdict(adapter)}
    if privacy is not None:
        noise, clip = privacy.noise_multiplier, privacy.clip
        adapted["privacy"] = {"noise_multiplier": noise, "clip": clip}
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


def _losses(
    state: TrainState,
    store: LatentStore,
    settings: TrainSettings,
    left: range,
    seed: int,
    ledger: PrivacyLedger | None,
) -> Iterator[float]:
    """Take the steps that are left, yielding the loss of each."""
    network, optimizer = state.network, state.optimizer
    if ledger is not None:
        yield from private_steps(
            network, optimizer, store, settings, ledger, left, PatientDraws(seed)
        )
        return
    generator_of = partial(step_generator, seed, 0, "")
    for drawn in drawn_ahead(store, settings, left, generator_of):
        yield train_step(network, optimizer, drawn, store.channel_weights, settings)


def _run(
    state: TrainState,
    losses: Iterator[float],
    settings: TrainSettings,
    *,
    steps: int,
    job: str,
    out: Path,
) -> None:
    """Take the steps that come; save the state now and then and in the end."""
    out.mkdir(parents=True, exist_ok=True)
    saved = time.monotonic()
    bar = tqdm(total=steps, initial=state.step, desc="train", unit="step", disable=None)
    with bar, (out / "train.jsonl").open("a", encoding="utf-8") as lines:
        for loss in losses:
            state.step += 1
            state.update_average(settings.ema_decay)
            shown = None if math.isnan(loss) else round(loss, 6)
            lines.write(json.dumps({"step": state.step, "loss": shown}) + "\n")
            bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            bar.update()
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                lines.flush()
                save_state(out / "checkpoint.safetensors", state, job)
                saved = time.monotonic()
                log.info("step %d of %d, loss %.4f", state.step, steps, loss)
    save_state(out / "checkpoint.safetensors", state, job)


def _keep_lines(path: Path, step: int) -> None:
    """Drop the log of steps after the checkpoint: they are about to be taken again."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)[:step]
    write_text(path, "".join(lines))
