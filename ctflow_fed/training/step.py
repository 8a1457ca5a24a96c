"""One step of training, the same in a federation and on one machine."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Parameter
from torch.optim import AdamW

from ctflow_fed.flow import (
    flow_matching_loss,
    logit_normal_times,
    shift_for,
    shifted,
    straight_path,
)
from ctflow_fed.machine import autocast
from ctflow_fed.model import FMvT
from ctflow_fed.model.neighbours import Guess
from ctflow_fed.seeds import derive_seed
from ctflow_fed.shapes import Clip, Time
from ctflow_fed.training.batch import ClipBatch
from ctflow_fed.training.optimizer import learning_rate_at
from ctflow_fed.training.prefetch import Drawn
from ctflow_fed.training.settings import TrainSettings

__all__ = [
    "batch_loss",
    "guess_loss",
    "step_generator",
    "train_step",
    "trained_weights",
]

GUESS_SHARE = 0.01
"""What the guess from known slices adds to the loss. It has weights of its own, which
move as fast whatever its share: this one leaves the clipped norm to the flow."""

UNIFORM_SHARE = 0.4
"""Of our clips, the share whose time is drawn evenly."""


def step_generator(
    seed: int, round_number: int, site: str, step: int
) -> torch.Generator:
    """Return the generator that one step draws everything from."""
    derived = derive_seed("train", seed, round_number, site, step)
    return torch.Generator().manual_seed(derived)


def trained_weights(network: FMvT) -> dict[str, Parameter]:
    """Return what training changes: all weights, or those of an adapter."""
    return {
        name: value for name, value in network.named_parameters() if value.requires_grad
    }


def train_step(
    network: FMvT,
    optimizer: AdamW,
    drawn: Drawn,
    channel_weights: Float[Tensor, " channels"],
    settings: TrainSettings,
    *,
    anchor: Mapping[str, Tensor] | None = None,
) -> float:
    """Update ``network`` in place and return the flow-matching loss before the update.

    The step that was drawn sets the learning rate. ``anchor`` holds the
    weights that FedProx pulls towards: ``mu / 2 |w - w_global|^2`` joins the loss.
    """
    device = next(network.parameters()).device
    batch, weights = drawn.batch.to(device), channel_weights.to(device)
    network.checkpointing = settings.checkpointing
    optimizer.zero_grad()
    loss = batch_loss(network, batch, weights, settings, drawn.generator)
    objective = loss.mean() + guess_loss(network, batch)
    if anchor is not None and settings.proximal:
        objective = objective + settings.proximal / 2 * _distance(network, anchor)
    objective.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), settings.gradient_clip)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate_at(drawn.step, settings)
    optimizer.step()
    return float(loss.detach().mean())


def batch_loss(
    network: FMvT,
    batch: ClipBatch,
    channel_weights: Float[Tensor, " channels"],
    settings: TrainSettings,
    generator: torch.Generator,
) -> Time:
    """Return the flow-matching loss of each clip at times drawn by ``generator``.

    The network computes in bfloat16 where the device does; the loss is float32.
    """
    device = batch.data.device
    t = _times(batch.data, settings, generator).to(device)
    noise = torch.randn(batch.data.shape, generator=generator).to(device)
    path = straight_path(batch.data, noise, t)
    with autocast(device):
        velocity = network(path.x_t, t, batch.conditions)
    scored = batch.scored[:, None, :, None, None].float()
    weights = scored * channel_weights[:, None, None, None]
    return flow_matching_loss(velocity.float(), path.u_t, weights)


def guess_loss(network: FMvT, batch: ClipBatch) -> Float[Tensor, ""]:
    """Return how unlikely the scored frames are by the guess from the known ones.

    The mean of ``((data - mean) / spread)^2 / 2 + log(spread)``, times its share in the
    objective; zero for the clips of the paper, which know no frame of their own.
    """
    conditions = batch.conditions
    if conditions.frames is None:
        return torch.zeros((), device=batch.data.device)
    guess: Guess = network.neighbours(conditions.context, conditions.frames)
    off = (batch.data - guess.mean) / guess.spread
    unlikely = off.square() / 2 + guess.spread.log()
    scored = batch.scored[:, None, :, None, None].expand_as(unlikely)
    return GUESS_SHARE * unlikely[scored].mean()


def _times(data: Clip, settings: TrainSettings, generator: torch.Generator) -> Time:
    """Draw the time of each clip: uniform in the paper, ours mostly near noise.

    Some of ours are uniform too, so that the last steps of sampling are learnt.
    """
    uniform = torch.rand(len(data), generator=generator)
    if settings.method == "ctflow":
        return uniform
    shift = shift_for(settings.time_shift, data[0, 0].numel())
    late = shifted(logit_normal_times(len(data), generator), shift)
    evenly = torch.rand(len(data), generator=generator) < UNIFORM_SHARE
    return torch.where(evenly, uniform, late)


def _distance(network: FMvT, anchor: Mapping[str, Tensor]) -> Tensor:
    squares = [
        (value - anchor[name]).square().sum()
        for name, value in trained_weights(network).items()
    ]
    return torch.stack(squares).sum()
