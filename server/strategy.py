"""What is said to a site, and what is taken from its reply, message by message."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from ctflow_fed.deployment.cargo import cargo_in, record_of, shards_in
from ctflow_fed.errors import CTFlowError, UpdateError
from ctflow_fed.federation import (
    PRIVATE_METRICS,
    Arrays,
    Depot,
    Manifest,
    Parcel,
    RoundOrder,
    SiteFacts,
    cargo_bytes,
    check_change,
    check_manifest,
    check_receipt,
    manifest_of,
    moved_by,
    moved_from,
    unstow,
)
from ctflow_fed.training import PrivacySettings

__all__ = [
    "CheckedUpdate",
    "Sorted",
    "Spending",
    "Traffic",
    "content_of",
    "facts_in",
    "is_crash",
    "is_gone",
    "is_lacking",
    "loss_in",
    "masked_in",
    "order_content",
    "sort_replies",
    "traffic_in",
    "update_in",
    "with_numbers",
]

T = TypeVar("T")


@dataclass(frozen=True)
class Traffic:
    """Bytes of arrays that went to the sites and came from them, and their shards."""

    sent: int = 0
    received: int = 0
    shards: int = 0

    def __add__(self, other: "Traffic") -> "Traffic":
        """Return both together."""
        return Traffic(
            self.sent + other.sent,
            self.received + other.received,
            self.shards + other.shards,
        )


GONE, CRASHED = 5, 8
FLOWER_ERRORS = {
    1: "its ClientApp could not be loaded; install the library of this version there",
    2: "its ClientApp raised an error; the site's own log has more",
    GONE: "its SuperNode went away; start it again",
    7: "it did not accept the app bundle",
    CRASHED: "its ClientApp ended before its answer, out of memory perhaps",
}
"""What Flower's error codes mean; the text that comes with them is not repeated."""

LONGEST_REASON = 400
LARGEST_NUMBER = 1e12  # neither a loss nor a count of slices comes near it


def order_content(order: RoundOrder, parcel: Parcel) -> RecordDict:
    """Return what the server sends: an order, and the arrays that go with it."""
    parts = {name: record_of(cargo) for name, cargo in parcel.parts.items()}
    return RecordDict({"order": ConfigRecord({**order.to_record()}), **parts})


def is_lacking(reply: Message) -> bool:
    """Tell whether a site says that it does not hold all that an order is about."""
    return not reply.has_error() and "lacking" in reply.content


def is_gone(reply: Message) -> bool:
    """Tell whether Flower answers for a node that is no longer there."""
    return reply.has_error() and reply.error.code == GONE


def is_crash(reply: Message) -> bool:
    """Tell whether the process that was to answer has ended before."""
    return reply.has_error() and reply.error.code == CRASHED


def traffic_in(reply: Message) -> Traffic:
    """Return what of arrays came with a reply, in it or in the shards that it names."""
    if reply.has_error():
        return Traffic()
    try:
        shards = shards_in(reply)
    except UpdateError:
        shards = ()
    arrays = (each for r in reply.content.array_records.values() for each in r.values())
    received = cargo_bytes(shards) + sum(len(each.data) for each in arrays)
    return Traffic(received=received, shards=len(shards))


@dataclass(frozen=True, kw_only=True)
class CheckedUpdate:
    """What a site has trained, and how far: relative to the length of the weights.

    Of a private round there are no losses (nan), but what is spent of the budget; of a
    secure one there are no arrays, and nobody knows how far it went (nan).
    """

    arrays: Arrays
    moved: float
    loss_first: float = math.nan
    loss_last: float = math.nan
    spending: "Spending | None" = None


@dataclass(frozen=True, kw_only=True)
class Spending:
    """What a site has spent of its privacy budget in all, and whether that was all.

    ``steps`` are those of this round.
    """

    epsilon: float
    steps: int
    is_spent: bool


@dataclass(frozen=True)
class Sorted(Generic[T]):
    """What the sites said, why others are not counted, and whose answer was wrong."""

    taken: dict[str, T]
    refused: dict[str, str]
    wrong: frozenset[str]


def sort_replies(
    replies: Mapping[str, Message],
    order: RoundOrder,
    facts: Mapping[str, SiteFacts],
    read: Callable[[RecordDict, str], T],
) -> Sorted[T]:
    """Sort the answers to an order; one that breaks its contract is wrong.

    ``facts`` is what the sites said of themselves before: none changes its weight or
    its store. A site that says itself why it cannot answer is refused but not wrong.
    """
    taken: dict[str, T] = {}
    refused: dict[str, str] = {}
    wrong: set[str] = set()
    for site in sorted(replies):
        try:
            content = content_of(replies[site])
        except CTFlowError as error:
            refused[site] = str(error)
            continue
        try:
            _check_receipt(content, order, facts[site])
            if facts[site].slices:
                _check_slices(content, facts[site].slices)
            taken[site] = read(content, site)
        except CTFlowError as error:
            refused[site] = str(error)
            wrong.add(site)
    return Sorted(taken, refused, frozenset(wrong))


def content_of(reply: Message) -> RecordDict:
    """Return the content of a reply; a reply that is an error is raised as ours."""
    if reply.has_error():
        code = reply.error.code
        raise UpdateError(FLOWER_ERRORS.get(code, f"Flower's error code {code}"))
    if is_lacking(reply):
        raise UpdateError(
            "it lacks the weights although all were sent; look at the folder of the "
            "site's state"
        )
    refusal = reply.content.get("refusal")
    if isinstance(refusal, ConfigRecord):
        reason = str(refusal.get("reason", "no reason was given"))[:LONGEST_REASON]
        raise UpdateError("".join(c if c.isprintable() else " " for c in reason))
    return reply.content


def facts_in(content: RecordDict) -> SiteFacts:
    """Return what a site said of its store."""
    facts = content.get("facts")
    if not isinstance(facts, ConfigRecord):
        raise UpdateError("expected the facts of a site, got a reply without them")
    return SiteFacts.from_record(facts)


def update_in(
    content: RecordDict,
    site: str,
    start: Arrays,
    length: float,
    precision: str,
    depot: Depot,
    privacy: PrivacySettings | None = None,
) -> CheckedUpdate:
    """Return what a site has trained from ``start``, checked in every respect.

    ``length`` is that of the network's weights; in any precision but float32 what came
    is the change from ``start``. Shards are taken out of ``depot``.
    """
    cargo = cargo_in(content, "arrays")
    if cargo is None:
        raise UpdateError("expected the weights of a site, got a reply without them")
    folder = depot.take(cargo, site) if isinstance(cargo, tuple) else depot.folder
    manifest = manifest_of(start)
    sent = unstow(cargo, manifest, precision, folder)
    if precision == "float32":
        update, change = sent, moved_from(sent, start)
    else:
        update, change = moved_by(start, sent), sent
    moved = check_change(change, length)
    return with_numbers(content, update, moved, privacy)


def masked_in(content: RecordDict, manifest: Manifest) -> dict[str, NDArray[np.uint32]]:
    """Return what a site has masked: arrays of the manifest in whole numbers."""
    arrays = content.get("arrays")
    if not isinstance(arrays, ArrayRecord):
        raise UpdateError("expected the weights of a site, got a reply without them")
    shapes = {name: tuple(each.shape) for name, each in arrays.items()}
    check_manifest(manifest, shapes)
    for each in arrays.values():
        if each.dtype != "uint32" or len(each.data) != 4 * math.prod(each.shape):
            raise UpdateError(
                "expected masked arrays of uint32 of the length that their shape says, "
                "got others; install the same version everywhere"
            )
    return {
        name: np.frombuffer(each.data, "<u4").astype(np.uint32).reshape(shapes[name])
        for name, each in arrays.items()
    }


def with_numbers(
    content: RecordDict, arrays: Arrays, moved: float, privacy: PrivacySettings | None
) -> CheckedUpdate:
    """Return an update with the numbers that came beside it."""
    if privacy is not None:
        spending = _spending_in(content, privacy)
        return CheckedUpdate(arrays=arrays, moved=moved, spending=spending)
    return CheckedUpdate(
        arrays=arrays,
        moved=moved,
        loss_first=_number(content, "loss-first"),
        loss_last=_number(content, "loss-last"),
    )


def loss_in(content: RecordDict) -> float:
    """Return the loss that a site found."""
    return _number(content, "loss")


def _spending_in(content: RecordDict, privacy: PrivacySettings) -> Spending:
    """Return what a site says it has spent; more than the budget is refused."""
    metrics = content.get("metrics")
    if not isinstance(metrics, MetricRecord) or set(metrics) != set(PRIVATE_METRICS):
        raise UpdateError(
            f"expected {', '.join(PRIVATE_METRICS)} and no other number with a private "
            "update, got others; install the same version everywhere"
        )
    epsilon = _number(content, "epsilon")
    if epsilon > privacy.epsilon:
        raise UpdateError(
            "expected a site that keeps to its privacy budget, got one that has spent "
            "more; look at the ledger in its state folder"
        )
    steps, spent = int(_number(content, "steps")), bool(_number(content, "spent"))
    return Spending(epsilon=epsilon, steps=steps, is_spent=spent)


def _number(content: RecordDict, name: str) -> float:
    metrics = content.get("metrics")
    value = metrics.get(name) if isinstance(metrics, MetricRecord) else None
    if not isinstance(value, int | float) or not 0 <= value <= LARGEST_NUMBER:
        raise UpdateError(
            f"expected a number from 0 to {LARGEST_NUMBER:g} as {name}, got another or "
            "none; look at the site's data"
        )
    return float(value)


def _check_receipt(content: RecordDict, order: RoundOrder, facts: SiteFacts) -> None:
    got = content.get("receipt")
    if not isinstance(got, ConfigRecord):
        raise UpdateError("expected an answer with its receipt, got one without")
    check_receipt(got, order, facts.site, facts.header)


def _check_slices(content: RecordDict, stated: int) -> None:
    if _slices(content) != stated:
        raise UpdateError(
            f"expected an answer that stands for the {stated} slices that the site "
            "stated, got another number; take no studies in during a job, or run it "
            "again"
        )


def _slices(content: RecordDict) -> int:
    slices = _number(content, "num-examples")
    if not (0 < slices <= 10**9 and slices == int(slices)):
        raise UpdateError("expected a count of slices that the update stands for")
    return int(slices)
