"""What a site does in a round, as functions of its store and of what it was sent."""

from collections.abc import Sequence
from dataclasses import dataclass

from ctflow_fed.ct.store import LatentStore
from ctflow_fed.federation.encoding import Wire, compress, pack
from ctflow_fed.federation.order import RoundOrder
from ctflow_fed.federation.parcel import Opened
from ctflow_fed.federation.payload import Arrays, minus
from ctflow_fed.federation.site_state import SiteMemory
from ctflow_fed.model import default_device
from ctflow_fed.training import evaluate_loss, fit

__all__ = ["SiteResult", "local_loss", "local_round"]


@dataclass(frozen=True, kw_only=True)
class SiteResult:
    """What a site has trained, as it travels: how much it counts, and two losses.

    The losses are means over the first and the last quarter of the steps; ``memory`` is
    what the site keeps for the next round.
    """

    wire: Wire
    slices: int
    loss_first: float
    loss_last: float
    memory: SiteMemory


def local_round(
    store: LatentStore,
    order: RoundOrder,
    opened: Opened,
    site: str,
    memory: SiteMemory,
) -> SiteResult:
    """Train what was sent on the store, as the order says.

    ``memory`` is that of the site after the round that it trained before.
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
    wire, residual = _encoded(trained, opened.arrays, memory.residual, order.precision)
    quarter = max(1, len(fitted.losses) // 4)
    return SiteResult(
        wire=wire,
        slices=fitted.slices,
        loss_first=_mean(fitted.losses[:quarter]),
        loss_last=_mean(fitted.losses[-quarter:]),
        memory=SiteMemory(residual, fitted.memory if kept else None),
    )


def local_loss(store: LatentStore, order: RoundOrder, opened: Opened) -> float:
    """Return the loss of the weights that were sent on a fixed choice of clips.

    The choice is the same in every round of a job.
    """
    network = opened.part.network(opened.arrays).to(default_device())
    method = order.training.method
    return evaluate_loss(network, store, seed=order.seed, method=method)


def _encoded(
    trained: Arrays, start: Arrays, residual: Arrays, precision: str
) -> tuple[Wire, Arrays]:
    """Return an update as it travels, the values or their change, and what is left."""
    if precision == "float32":
        return pack(trained), {}
    change = compress(minus(trained, start), residual, precision)
    return change.wire, change.residual


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
