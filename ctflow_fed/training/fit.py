"""Training for a number of steps, as a site does in a round."""

from dataclasses import dataclass
from functools import partial

import torch

from ctflow_fed.clips import CLIP_SLICES
from ctflow_fed.ct.store import LatentStore, StoreHeader
from ctflow_fed.errors import MismatchError, StoreError
from ctflow_fed.model import FMvT, Provenance
from ctflow_fed.training.batch import (
    ClipBatch,
    Place,
    known_clips,
    previous_clips,
)
from ctflow_fed.training.optimizer import (
    OptimizerMemory,
    memory_of,
    optimizer_of,
    remind,
)
from ctflow_fed.training.prefetch import drawn_ahead
from ctflow_fed.training.settings import TrainSettings
from ctflow_fed.training.step import (
    batch_loss,
    step_generator,
    train_step,
    trained_weights,
)

__all__ = [
    "FitResult",
    "check_channels",
    "check_origin",
    "check_store",
    "evaluate_loss",
    "fit",
]

EVALUATED_CLIPS = 64
"""Clips that an evaluation looks at; more would cost more than they tell."""


@dataclass(frozen=True)
class FitResult:
    """The loss of every step, and the slices of the store: the weight in FedAvg.

    ``memory`` is what the optimizer remembers in the end.
    """

    losses: tuple[float, ...]
    slices: int
    memory: OptimizerMemory


def fit(
    network: FMvT,
    store: LatentStore,
    settings: TrainSettings,
    *,
    steps: int,
    seed: int,
    round_number: int = 0,
    site: str = "",
    memory: OptimizerMemory | None = None,
) -> FitResult:
    """Train ``network`` in place for ``steps`` steps.

    The optimizer is fresh, or goes on from its ``memory``; its learning rate begins
    anew in both. What is drawn is a function of (seed, round, site, step) alone.
    FedProx pulls towards the weights that the network came with.
    """
    check_store(network, store)
    weights = trained_weights(network.train())
    optimizer = optimizer_of(weights, settings)
    if memory is not None:
        remind(optimizer, weights, memory)
    anchor = {name: value.detach().clone() for name, value in weights.items()}
    generator_of = partial(step_generator, seed, round_number, site)
    losses = tuple(
        train_step(
            network,
            optimizer,
            drawn,
            store.channel_weights,
            settings,
            anchor=anchor,
        )
        for drawn in drawn_ahead(store, settings, range(steps), generator_of)
    )
    slices = sum(record.slices for record in store.records)
    taken = steps + (memory.steps if memory is not None else 0)
    return FitResult(losses, slices, memory_of(optimizer, weights, taken))


@torch.no_grad()
def evaluate_loss(
    network: FMvT, store: LatentStore, *, seed: int, method: str = "known"
) -> float:
    """Return the flow-matching loss on a fixed choice of clips, times and noise.

    The choice depends on ``seed`` and the store only, so that two networks of a method
    can be compared; it is the same whatever was trained before. No slice is known.
    """
    check_store(network, store)
    network.eval()
    device = next(network.parameters()).device
    generator = step_generator(seed, 0, "evaluate", 0)
    places = [
        Place(record, tuple(range(start, start + CLIP_SLICES)))
        for record in store.records
        for start in range(0, record.slices, CLIP_SLICES)
    ]
    chosen = torch.randperm(len(places), generator=generator)[:EVALUATED_CLIPS]
    settings = TrainSettings(method=method)
    losses = []
    for part in chosen.split(8):
        batch = _plain_clips(store, [places[int(i)] for i in part], method, generator)
        weights = store.channel_weights.to(device)
        losses.append(
            batch_loss(network, batch.to(device), weights, settings, generator)
        )
    return float(torch.cat(losses).mean())


def _plain_clips(
    store: LatentStore, places: list[Place], method: str, generator: torch.Generator
) -> ClipBatch:
    """Read clips with whole reports and without noise in their context."""
    clean = torch.zeros(len(places))
    if method == "ctflow":
        return previous_clips(store, places, clean, generator)
    unknown = torch.zeros(len(places), CLIP_SLICES, dtype=torch.bool)
    return known_clips(store, places, unknown, clean, generator)


def check_origin(origin: Provenance, header: StoreHeader) -> None:
    """Refuse to train a model on latents or tokens of another kind than its own.

    An imported model that names no codec or no encoder is bound to none.
    """
    codecs, encoders = ("", header.codec_id), ("", header.encoder_id)
    if origin.codec_id not in codecs or origin.encoder_id not in encoders:
        raise MismatchError(
            "the model to go on from was trained with another codec or report encoder "
            "than the store was made with; take the studies in with those of the model"
        )


def check_store(network: FMvT, store: LatentStore) -> None:
    """Refuse a store that this network cannot be trained on."""
    if not len(store):
        raise StoreError("the store holds no study; take some in with: ctflow intake")
    check_channels(network, store.header)


def check_channels(network: FMvT, header: StoreHeader) -> None:
    """Refuse latents that the network has not the channels for."""
    expected, got = network.config.latent_channels, header.channels
    if expected != got:
        raise MismatchError(
            f"the network needs latents of {expected} channels, the store has {got}; "
            "take the studies in with the codec of the network"
        )
