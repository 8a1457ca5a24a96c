"""One step of training, the same in a federation and on one machine."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.optim import AdamW

from ctflow_fed.ct.store import LatentStore
from ctflow_fed.flow import (
    flow_matching_loss,
    logit_normal_times,
    shifted,
    straight_path,
)
from ctflow_fed.model import FMvT
from ctflow_fed.seeds import derive_seed
from ctflow_fed.shapes import Time
from ctflow_fed.training.batch import ClipBatch, draw_batch, with_fewer_sentences
from ctflow_fed.training.settings import TrainSettings

__all__ = ["batch_loss", "make_optimizer", "step_generator", "train_step"]


def step_generator(
    seed: int, round_number: int, site: str, step: int
) -> torch.Generator:
    """Return the generator that one step draws everything from."""
    derived = derive_seed("train", seed, round_number, site, step)
    return torch.Generator().manual_seed(derived)


def make_optimizer(network: FMvT, settings: TrainSettings) -> AdamW:
    """Return AdamW with CTFlow's betas."""
    return AdamW(
        network.parameters(),
        lr=settings.learning_rate,
        betas=(0.9, 0.999),
        weight_decay=settings.weight_decay,
    )


def train_step(
    network: FMvT,
    optimizer: AdamW,
    store: LatentStore,
    settings: TrainSettings,
    *,
    step: int,
    generator: torch.Generator,
    anchor: Mapping[str, Tensor] | None = None,
) -> float:
    """Update ``network`` in place and return the flow-matching loss before the update.

    ``step`` sets the learning rate of the warm-up. ``anchor`` holds the weights that
    FedProx pulls towards: ``mu / 2 |w - w_global|^2`` is added to the loss.
    """
    device = next(network.parameters()).device
    batch = draw_batch(store, settings.batch_clips, settings.start_boost, generator)
    batch = with_fewer_sentences(batch, settings.sentence_dropout, generator)
    loss = batch_loss(network, batch.to(device), settings, generator)
    objective = loss.mean()
    if anchor is not None and settings.proximal:
        objective = objective + settings.proximal / 2 * _distance(network, anchor)

    optimizer.zero_grad()
    objective.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), settings.gradient_clip)
    for group in optimizer.param_groups:
        warmth = min(1.0, (step + 1) / (settings.warmup_steps + 1))
        group["lr"] = settings.learning_rate * warmth
    optimizer.step()
    return float(loss.detach().mean())


def batch_loss(
    network: FMvT, batch: ClipBatch, settings: TrainSettings, generator: torch.Generator
) -> Time:
    """Return the flow-matching loss of each clip at times drawn by ``generator``."""
    device = batch.data.device
    t = logit_normal_times(len(batch.data), generator)
    t = shifted(t, settings.time_shift).to(device)
    noise, blur = (
        torch.randn(batch.data.shape, generator=generator).to(device) for _ in range(2)
    )
    path = straight_path(batch.data, noise, t)
    velocity = network(
        path.x_t,
        t,
        context=batch.context.lerp(blur, settings.context_noise),
        report=batch.report,
        report_mask=batch.report_mask,
        geometry=batch.geometry,
    )
    return flow_matching_loss(velocity, path.u_t)


def _distance(network: FMvT, anchor: Mapping[str, Tensor]) -> Tensor:
    squares = [
        (value - anchor[name]).square().sum()
        for name, value in network.named_parameters()
    ]
    return torch.stack(squares).sum()
