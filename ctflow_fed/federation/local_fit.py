"""What a site does in a round, as functions of its store and of what it was sent."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ctflow_fed.ct.store import LatentStore
from ctflow_fed.errors import UpdateError
from ctflow_fed.federation.array_files import ArrayWriter
from ctflow_fed.federation.arrays import Arrays, Run, runs_of, values_of
from ctflow_fed.federation.encoding import Compressed, compress, packed
from ctflow_fed.federation.ledger import SPENT
from ctflow_fed.federation.order import RoundOrder
from ctflow_fed.federation.parcel import Opened
from ctflow_fed.federation.shards import Cargo, stow
from ctflow_fed.federation.site_state import SiteMemory
from ctflow_fed.model import default_device
from ctflow_fed.threads import each_ahead
from ctflow_fed.training import PrivacyLedger, evaluate_loss, fit, fit_privately

__all__ = [
    "PRIVATE_METRICS",
    "PrivateResult",
    "SiteResult",
    "local_loss",
    "local_round",
    "private_round",
]

PRIVATE_METRICS = ("epsilon", "steps", "spent")
"""The only numbers that leave a site with the update of a private round."""


@dataclass(frozen=True, kw_only=True)
class SiteResult:
    """What a site has trained, as it travels: how much it counts, and two losses.

    The losses are means over the first and the last quarter of the steps; ``memory`` is
    what the site keeps for the next round.
    """

    cargo: Cargo
    slices: int
    loss_first: float
    loss_last: float
    memory: SiteMemory

    @property
    def metrics(self) -> dict[str, int | float]:
        """The numbers that go with the update."""
        return {
            "num-examples": self.slices,
            "loss-first": self.loss_first,
            "loss-last": self.loss_last,
        }


@dataclass(frozen=True, kw_only=True)
class PrivateResult:
    """What a site has trained privately, as it travels, and what it has spent.

    ``steps`` are those that its budget allowed in this round, ``epsilon`` is spent in
    all, and ``is_spent`` tells whether not one step more is allowed.
    """

    cargo: Cargo
    steps: int
    epsilon: float
    is_spent: bool
    memory: SiteMemory

    @property
    def metrics(self) -> dict[str, int | float]:
        """The numbers that go with the update; none of them depends on a patient."""
        values = (self.epsilon, self.steps, int(self.is_spent))
        return dict(zip(PRIVATE_METRICS, values, strict=True))


def local_round(
    store: LatentStore,
    order: RoundOrder,
    opened: Opened,
    site: str,
    memory: SiteMemory,
    outbox: Path,
) -> SiteResult:
    """Train what was sent on the store, as the order says.

    ``memory`` is that of the site after the round that it trained before; what is too
    large for a message is put into the folder ``outbox``.
    """
    kept = order.optimizer == "kept"
    network = opened.part.trainable(opened.arrays).to(default_device())
    fitted = fit(
        network,
        store,
        order.training,
        steps=order.steps,
        seed=order.seed,
        round_number=order.round_number,
        site=site,
        memory=memory.optimizer if kept else None,
    )
    trained = opened.part.trained(network)
    cargo, residual = _encoded(
        trained, opened, memory.residual, order.precision, outbox
    )
    quarter = max(1, len(fitted.losses) // 4)
    return SiteResult(
        cargo=cargo,
        slices=fitted.slices,
        loss_first=_mean(fitted.losses[:quarter]),
        loss_last=_mean(fitted.losses[-quarter:]),
        memory=SiteMemory(residual, fitted.memory if kept else None),
    )


def private_round(
    store: LatentStore,
    order: RoundOrder,
    opened: Opened,
    site: str,
    memory: SiteMemory,
    ledger: PrivacyLedger,
    outbox: Path,
) -> PrivateResult:
    """Train what was sent by DP-SGD, as far as the budget of the ledger goes.

    All of what comes of it is noisy or follows from the order and the number of
    patients. The noise and the choice of patients are the site's own
    (`ctflow_fed.training.randomness`). Raises ``UpdateError`` where the budget is spent
    and the update is for a secure sum: zeros in it would lay bare what the others sent.
    """
    network = opened.part.trainable(opened.arrays).to(default_device())
    fitted = fit_privately(
        network,
        store,
        order.training,
        ledger,
        steps=order.steps,
        seed=order.seed,
        round_number=order.round_number,
        site=site,
    )
    if order.secure and not fitted.steps:
        raise UpdateError(SPENT)
    trained = opened.part.trained(network)
    cargo, residual = _encoded(
        trained, opened, memory.residual, order.precision, outbox
    )
    return PrivateResult(
        cargo=cargo,
        steps=fitted.steps,
        epsilon=fitted.epsilon,
        is_spent=fitted.is_spent,
        memory=SiteMemory(residual),
    )


def local_loss(store: LatentStore, order: RoundOrder, opened: Opened) -> float:
    """Return the loss of the weights that were sent on a fixed choice of clips.

    The choice is the same in every round of a job. In a private one no loss is told:
    it depends on patients and has no noise.
    """
    if order.privacy is not None:
        raise UpdateError(
            "expected no question for a loss in a private job, got one; "
            "losses are not private"
        )
    network = opened.part.network(opened.arrays).to(default_device())
    method = order.training.method
    return evaluate_loss(network, store, seed=order.seed, method=method)


def _encoded(
    trained: Arrays, opened: Opened, residual: Arrays, precision: str, outbox: Path
) -> tuple[Cargo, Arrays]:
    """Return an update as it travels, the values or their change, and what is left."""
    manifest = opened.part.manifest
    if precision == "float32":
        return stow(packed(trained, manifest), manifest, precision, outbox), {}

    def rounded(run: Run) -> Compressed:
        moved = values_of(trained, run) - values_of(opened.arrays, run)
        left = values_of(residual, run) if residual else None
        return compress(np.asarray(moved), left, precision)

    def pieces(left: ArrayWriter) -> Iterator[tuple[str, bytes]]:
        for run, done in each_ahead(rounded, runs_of(manifest)):
            left.write(run.name, done.residual)
            yield run.name, done.data

    with ArrayWriter(outbox / "residual.safetensors", manifest) as left:
        cargo = stow(pieces(left), manifest, precision, outbox)
    return cargo, left.file


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
