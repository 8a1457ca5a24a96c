"""What of the weights goes with an order, and how a site comes to have all of them.

A site keeps what it was sent last. Where it holds the weights that an order names,
nothing is sent; where it holds those before them, what was changed, as it was rounded;
and everything else in full. A site that turns out to hold less says so, and is sent
everything: `Parcels.everything`.
"""

from dataclasses import dataclass
from functools import cached_property

import torch

from ctflow_fed.errors import MismatchError, UpdateError
from ctflow_fed.federation.encoding import Wire, bytes_of, pack, unpack
from ctflow_fed.federation.order import RoundOrder
from ctflow_fed.federation.part import Part, WholePart, part_of
from ctflow_fed.federation.payload import (
    Arrays,
    Manifest,
    arrays_digest,
    load_arrays,
    manifest_of,
    network_manifest,
    plus,
)
from ctflow_fed.federation.site_state import SiteState
from ctflow_fed.model import FMvT

__all__ = ["Change", "Opened", "Parcel", "Parcels", "open_parcel"]


@dataclass(frozen=True)
class Parcel:
    """The arrays that go with an order.

    ``weights`` and ``base`` are in float32, ``change`` is in the order's precision and
    added to what the site was sent last.
    """

    weights: Wire | None = None
    change: Wire | None = None
    base: Wire | None = None

    @property
    def bytes(self) -> int:
        """How many bytes the values have."""
        parts = (self.weights, self.change, self.base)
        return sum(bytes_of(wire) for wire in parts if wire is not None)


@dataclass(frozen=True)
class Change:
    """What leads from the weights of the digest ``before`` to those after them."""

    before: str
    wire: Wire


class Parcels:
    """The parcels that may go with an order about arrays, each made when needed."""

    def __init__(
        self, order: RoundOrder, arrays: Arrays, part: Part, change: Change | None
    ) -> None:
        self._start, self._arrays = order.start, arrays
        self._part, self._change = part, change

    def for_holder(self, held: str) -> Parcel:
        """Return what a site needs that holds weights of the digest ``held``, if any.

        Whether it holds the base of an adapter it has to say.
        """
        if held == self._start:
            return Parcel()
        if self._change is not None and held == self._change.before:
            return Parcel(change=self._change.wire)
        return self._weights

    @cached_property
    def everything(self) -> Parcel:
        """All that a site needs, whatever it holds."""
        base = pack(self._part.base) if self._part.base else None
        return Parcel(weights=self._weights.weights, base=base)

    @cached_property
    def _weights(self) -> Parcel:
        return Parcel(weights=pack(self._arrays))


@dataclass(frozen=True)
class Opened:
    """What a site has of an order: the part that is trained, and its arrays."""

    part: Part
    arrays: Arrays


def open_parcel(parcel: Parcel, order: RoundOrder, state: SiteState) -> Opened | None:
    """Return what an order is about, and keep it; None where the site lacks some of it.

    Raises ``UpdateError`` where something came that the order does not name, and
    ``MismatchError`` where the network is another one here than at the server.
    """
    part = _part(parcel, order, state)
    if part is None:
        return None
    if part.signature != order.manifest:
        raise MismatchError(
            "the network of the round has other arrays here than at the server; "
            "install the same version at the server and at every site"
        )
    arrays = _arrays(parcel, order, part, state)
    return None if arrays is None else Opened(part, arrays)


def _part(parcel: Parcel, order: RoundOrder, state: SiteState) -> Part | None:
    """Return the part that an order is about; None where its base is not here."""
    if not order.base:
        with torch.device("meta"):  # the shapes are all that is needed
            return WholePart(FMvT(order.network))
    network = FMvT(order.network)
    base = _base(parcel, order, network_manifest(network), state)
    if base is None:
        return None
    load_arrays(network, base)
    private = order.privacy is not None
    return part_of(network, order.adapter_rank, order.seed, private=private)


def _base(
    parcel: Parcel, order: RoundOrder, manifest: Manifest, state: SiteState
) -> Arrays | None:
    if parcel.base is None:
        return state.base(order.base)
    base = unpack(parcel.base, manifest)
    _check_digest(base, order.base)
    state.keep_base(base)
    return base


def _arrays(
    parcel: Parcel, order: RoundOrder, part: Part, state: SiteState
) -> Arrays | None:
    if parcel.weights is not None:
        arrays: Arrays = unpack(parcel.weights, part.manifest)
        _check_digest(arrays, order.start)
        state.keep_weights(arrays)
        return arrays
    held = state.weights()
    if held is None or manifest_of(held) != part.manifest:
        return None
    if parcel.change is not None:
        held = plus(held, unpack(parcel.change, part.manifest, order.precision))
    if arrays_digest(held) != order.start:
        return None
    if parcel.change is not None:
        state.keep_weights(held)
    return held


def _check_digest(arrays: Arrays, digest: str) -> None:
    if arrays_digest(arrays) != digest:
        raise UpdateError(
            "expected the weights that the order names, got others; "
            "the server must send both again"
        )
