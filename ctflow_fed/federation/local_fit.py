"""What a site does in a round, as functions of its store and of what it was sent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctflow_fed.ct.store import LatentStore
from ctflow_fed.errors import MismatchError, UpdateError
from ctflow_fed.federation.payload import (
    WireArray,
    arrays_digest,
    arrays_of,
    load_arrays,
    manifest_digest,
    manifest_of,
    unpack,
)
from ctflow_fed.federation.settings import RoundOrder
from ctflow_fed.model import FMvT, default_device
from ctflow_fed.training import evaluate_loss, fit

__all__ = ["SiteResult", "local_loss", "local_round"]


@dataclass(frozen=True, kw_only=True)
class SiteResult:
    """What a site has trained: its weights, how much they count, and two losses.

    The losses are means over the first and the last quarter of the steps.
    """

    arrays: Mapping[str, NDArray[np.float32]]
    slices: int
    loss_first: float
    loss_last: float


def local_round(
    store: LatentStore, order: RoundOrder, wire: Mapping[str, WireArray], site: str
) -> SiteResult:
    """Train the weights that were sent on the store, as the order says."""
    network = _network(order, wire)
    fitted = fit(
        network,
        store,
        order.training,
        steps=order.steps,
        seed=order.seed,
        round_number=order.round_number,
        site=site,
    )
    quarter = max(1, len(fitted.losses) // 4)
    return SiteResult(
        arrays=arrays_of(network),
        slices=fitted.slices,
        loss_first=_mean(fitted.losses[:quarter]),
        loss_last=_mean(fitted.losses[-quarter:]),
    )


def local_loss(
    store: LatentStore, order: RoundOrder, wire: Mapping[str, WireArray]
) -> float:
    """Return the loss of the weights that were sent on a fixed choice of clips.

    The choice is the same in every round of a job.
    """
    network = _network(order, wire)
    method = order.training.method
    return evaluate_loss(network, store, seed=order.seed, method=method)


def _network(order: RoundOrder, wire: Mapping[str, WireArray]) -> FMvT:
    """Build the network of an order with the weights that came with it."""
    network = FMvT(order.network)
    manifest = manifest_of(arrays_of(network))
    if manifest_digest(manifest) != order.manifest:
        raise MismatchError(
            "the network of the round has other arrays here than at the server; "
            "install the same version at the server and at every site"
        )
    arrays = unpack(wire, manifest)
    if arrays_digest(arrays) != order.start:
        raise UpdateError(
            "expected the weights that the order names, got others; "
            "the server must send both again"
        )
    load_arrays(network, arrays)
    return network.to(default_device())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
