"""DP-SGD: training that hardly depends on any one patient (arXiv 1607.00133).

A step samples every patient with the same chance. Each of those sampled gives one clip
and the gradient of its loss, clipped to a norm; noise joins the sum. The promise of the
ledger needs that nothing else ties patients together:

* a clip goes through the network alone. Libraries for gradients by example take the
  first axis of every layer for the examples; ours holds frames, or places of a frame.
  On a CPU a clip takes no longer so than in a batch;
* what is drawn of a patient is a function of (seed, round, site, step) and of that
  patient's studies, not of how many others there are or how long their volumes are;
* the loss is a mean over one clip with the codec's weights, and the sum of gradients is
  divided by the number expected, not by the number that came;
* who is sampled, and the noise, are secret (`ctflow_fed.training.randomness`).

The number of a site's patients is taken to be known. The promise is about weights; the
losses are not covered and have to stay at the site.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.optim import AdamW

from ctflow_fed.ct.store import LatentStore
from ctflow_fed.errors import SettingsError
from ctflow_fed.model import FMvT
from ctflow_fed.seeds import derive_seed
from ctflow_fed.training.batch import DRAWS
from ctflow_fed.training.fit import check_store
from ctflow_fed.training.gaussian import clipped, noisy, poisson_sample
from ctflow_fed.training.optimizer import learning_rate_at, optimizer_of
from ctflow_fed.training.privacy_ledger import NoisySteps, PrivacyLedger
from ctflow_fed.training.settings import PrivacySettings, TrainSettings
from ctflow_fed.training.step import batch_loss, guess_loss, trained_weights

__all__ = [
    "Descent",
    "PatientDraws",
    "PrivateFit",
    "fit_privately",
    "patient_gradient",
    "private_steps",
]

BOOKED_STEPS = 16
"""Steps that are booked at once; a kill wastes no more of the budget than these and
what was not saved."""

log = logging.getLogger(__name__)


class PatientDraws(NamedTuple):
    """What the draws of a round are a function of, but for the step and the patient."""

    seed: int
    round_number: int = 0
    site: str = ""

    def generator(self, step: int, patient: LatentStore) -> Generator:
        """Return what one patient's clip, time and noise on the path are drawn from."""
        own = patient.records[0].sha256
        return Generator().manual_seed(derive_seed("patient", *self, step, own))


@dataclass(frozen=True)
class PrivateFit:
    """What a round of private training came to: nothing but this may be sent.

    ``steps`` are those that the budget allowed, ``epsilon`` is what is spent in all,
    and ``is_spent`` tells whether not one step more is allowed. All three follow from
    the settings and the number of patients.
    """

    steps: int
    epsilon: float
    is_spent: bool


def fit_privately(
    network: FMvT,
    store: LatentStore,
    settings: TrainSettings,
    ledger: PrivacyLedger,
    *,
    steps: int,
    seed: int,
    round_number: int = 0,
    site: str = "",
) -> PrivateFit:
    """Train ``network`` in place as `ctflow_fed.training.fit` does, but privately.

    Takes fewer steps, or none, where the budget ends. A step expects
    ``settings.batch_clips`` patients. Raises ``StoreError`` for a store that does not
    tell patients apart, ``SettingsError`` for one that has too few of them.
    """
    check_store(network, store)
    optimizer = optimizer_of(trained_weights(network.train()), settings)
    draws = PatientDraws(seed, round_number, site)
    losses = private_steps(
        network, optimizer, store, settings, ledger, range(steps), draws
    )
    taken = sum(1 for _ in losses)
    rate = _rate(len(store.by_patient()), settings, ledger.settings)
    another = NoisySteps(ledger.settings.noise_multiplier, rate, 1)
    return PrivateFit(taken, ledger.epsilon(), ledger.affordable(another) == 0)


def private_steps(
    network: FMvT,
    optimizer: AdamW,
    store: LatentStore,
    settings: TrainSettings,
    ledger: PrivacyLedger,
    steps: range,
    draws: PatientDraws,
) -> Iterator[float]:
    """Take steps as far as the budget goes, yielding the mean loss before each.

    A step that sampled nobody has no loss (nan), but noise as every other. Steps are
    booked before the first of them is taken. FedProx pulls towards the weights that the
    network came with.
    """
    patients = store.by_patient()
    rate = _rate(len(patients), settings, ledger.settings)
    steps = _affordable(steps, rate, ledger)
    descent = Descent(network, optimizer, settings, ledger.settings)
    for step in steps:
        if (step - steps.start) % BOOKED_STEPS == 0:
            ahead = min(BOOKED_STEPS, steps.stop - step)
            ledger.book(NoisySteps(ledger.settings.noise_multiplier, rate, ahead))
        sampled = poisson_sample(patients, rate)
        yield descent.take(step, sampled, draws)


def patient_gradient(
    network: FMvT, patient: LatentStore, settings: TrainSettings, generator: Generator
) -> tuple[float, Float[Tensor, " weights"]]:
    """Return the loss of one clip of a patient and its gradient as a row.

    ``patient`` is the store of one patient (`LatentStore.by_patient`).
    """
    weights = trained_weights(network)
    device = next(iter(weights.values())).device
    one = replace(settings, batch_clips=1)
    batch = DRAWS[settings.method](patient, one, generator).to(device)
    channel_weights = patient.channel_weights.to(device)
    loss = batch_loss(network, batch, channel_weights, settings, generator).sum()
    objective = loss + guess_loss(network, batch)
    parts = torch.autograd.grad(objective, list(weights.values()))
    return float(loss.detach()), torch.cat([part.flatten() for part in parts])


class Descent:
    """The network on its way down, noisy step by noisy step."""

    def __init__(
        self,
        network: FMvT,
        optimizer: AdamW,
        settings: TrainSettings,
        privacy: PrivacySettings,
    ) -> None:
        network.checkpointing = settings.checkpointing
        self.network, self.optimizer = network, optimizer
        self.settings, self.privacy = settings, privacy
        self.weights = list(trained_weights(network).values())
        self.anchor = [weight.detach().clone() for weight in self.weights]

    def take(
        self, step: int, sampled: Sequence[LatentStore], draws: PatientDraws
    ) -> float:
        """Take one step with those sampled and return the mean of their losses."""
        count = sum(weight.numel() for weight in self.weights)
        total = torch.zeros(count, dtype=torch.float64, device=self.weights[0].device)
        losses = []
        for patient in sampled:
            loss, gradient = patient_gradient(
                self.network, patient, self.settings, draws.generator(step, patient)
            )
            total += clipped(gradient, self.privacy.clip)
            losses.append(loss)
        self._move(noisy(total, self.privacy) / self.settings.batch_clips, step)
        return sum(losses) / len(losses) if losses else math.nan

    @torch.no_grad()
    def _move(self, mean: Float[Tensor, " weights"], step: int) -> None:
        """Let the optimizer move the weights; no patient is looked at from here on."""
        sizes = [weight.numel() for weight in self.weights]
        parts = mean.float().split(sizes)
        for weight, start, part in zip(self.weights, self.anchor, parts, strict=True):
            pull = self.settings.proximal * (weight - start)
            weight.grad = part.view_as(weight) + pull
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(step, self.settings)
        self.optimizer.step()


def _rate(patients: int, settings: TrainSettings, privacy: PrivacySettings) -> float:
    """Return the chance with which a step samples each patient."""
    if settings.batch_clips > patients:
        raise SettingsError(
            f"a step expects {settings.batch_clips} patients, the store has "
            f"{patients}; take fewer clips in a step"
        )
    if privacy.delta * patients >= 1:
        raise SettingsError(
            "delta must be less than one over the number of patients; with more than "
            "that, to publish one of them whole would keep the promise"
        )
    return settings.batch_clips / patients


def _affordable(steps: range, rate: float, ledger: PrivacyLedger) -> range:
    """Return the first of the steps, as many as the budget allows; say if not all."""
    if not steps:
        return steps
    wanted = NoisySteps(ledger.settings.noise_multiplier, rate, len(steps))
    allowed = ledger.affordable(wanted)
    if allowed < len(steps):
        log.warning(
            "the privacy budget ends training after step %d of %d",
            steps.start + allowed,
            steps.stop,
        )
    return steps[:allowed]
