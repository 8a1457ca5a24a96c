"""What of the weights goes with an order, and how a site comes to have all of them.

A site keeps what it was sent last. Where it holds the weights that an order names,
nothing is sent; where it holds those before them, what was changed, as it was rounded;
and everything else in full. A site that turns out to hold less says so, and is sent
everything: `Parcels.everything`.
"""

from dataclasses import dataclass
from functools import cached_property

from ctflow_fed.errors import MismatchError, UpdateError
from ctflow_fed.federation.arrays import Arrays, arrays_digest, manifest_of
from ctflow_fed.federation.depot import Depot
from ctflow_fed.federation.encoding import packed
from ctflow_fed.federation.order import RoundOrder
from ctflow_fed.federation.part import Part, part_of
from ctflow_fed.federation.payload import blank_network, moved_by, network_manifest
from ctflow_fed.federation.shards import Cargo, cargo_bytes, unstow
from ctflow_fed.federation.site_state import SiteState

__all__ = ["Change", "Opened", "Parcel", "Parcels", "open_parcel"]


@dataclass(frozen=True)
class Parcel:
    """The arrays that go with an order.

    ``weights`` and ``base`` are in float32, ``change`` is in the order's precision and
    added to what the site was sent last.
    """

    weights: Cargo | None = None
    change: Cargo | None = None
    base: Cargo | None = None

    @property
    def parts(self) -> dict[str, Cargo]:
        """Whatever goes with the order, by the name that it has in the message."""
        named = {"arrays": self.weights, "change": self.change, "base": self.base}
        return {name: cargo for name, cargo in named.items() if cargo is not None}

    @property
    def bytes(self) -> int:
        """How many bytes the values have."""
        return sum(map(cargo_bytes, self.parts.values()))

    @property
    def shards(self) -> int:
        """How many shards the values lie in, none where they go with the message."""
        return sum(len(each) for each in self.parts.values() if isinstance(each, tuple))


@dataclass(frozen=True)
class Change:
    """What leads from the weights of the digest ``before`` to those after them."""

    before: str
    cargo: Cargo


class Parcels:
    """The parcels that may go with an order about arrays, each made when needed.

    What is too large for a message lies in ``depot``.
    """

    def __init__(
        self,
        order: RoundOrder,
        arrays: Arrays,
        part: Part,
        change: Change | None,
        depot: Depot,
    ) -> None:
        self._start, self._arrays = order.start, arrays
        self._part, self._change, self._depot = part, change, depot

    def for_holder(self, held: str) -> Parcel:
        """Return what a site needs that holds weights of the digest ``held``, if any.

        Whether it holds the base of an adapter it has to say.
        """
        if held == self._start:
            return Parcel()
        if self._change is not None and held == self._change.before:
            return Parcel(change=self._change.cargo)
        return self._weights

    @cached_property
    def everything(self) -> Parcel:
        """All that a site needs, whatever it holds."""
        base = self._stowed("base", self._part.base) if self._part.base else None
        return Parcel(weights=self._weights.weights, base=base)

    @cached_property
    def _weights(self) -> Parcel:
        return Parcel(weights=self._stowed("weights", self._arrays))

    def _stowed(self, kind: str, arrays: Arrays) -> Cargo:
        manifest = manifest_of(arrays)
        return self._depot.offer(kind, packed(arrays, manifest), manifest, "float32")


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
    weights = _base(parcel, order, state) if order.base else {}
    if weights is None:
        return None
    rank, private = order.adapter_rank, order.privacy is not None
    return part_of(order.network, weights, rank, order.seed, private=private)


def _base(parcel: Parcel, order: RoundOrder, state: SiteState) -> Arrays | None:
    if parcel.base is None:
        return state.base(order.base)
    manifest = network_manifest(blank_network(order.network))
    base = unstow(parcel.base, manifest, "float32", state.inbox)
    return _named(state.keep_base(base, order.base))


def _arrays(
    parcel: Parcel, order: RoundOrder, part: Part, state: SiteState
) -> Arrays | None:
    if parcel.weights is not None:
        arrays = unstow(parcel.weights, part.manifest, "float32", state.inbox)
        return _named(state.keep_weights(arrays, order.start))
    held = state.weights()
    if held is None or manifest_of(held) != part.manifest:
        return None
    if parcel.change is None:
        return held if arrays_digest(held) == order.start else None
    cargo, precision = parcel.change, order.precision
    change = unstow(cargo, part.manifest, precision, state.inbox)
    return state.keep_weights(moved_by(held, change), order.start)


def _named(kept: Arrays | None) -> Arrays:
    """Return what came; refuse it where it is not what the order names."""
    if kept is None:
        raise UpdateError(
            "expected the weights that the order names, got others; "
            "the server must send both again"
        )
    return kept
