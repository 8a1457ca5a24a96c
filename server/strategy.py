"""What is said to a site, and what is taken from its reply, message by message."""

import math
from collections.abc import Callable, Mapping
from typing import TypeVar

from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Message,
    MetricRecord,
    RecordDict,
)

from ctflow_fed.errors import CTFlowError, UpdateError
from ctflow_fed.federation import (
    RAW,
    Arrays,
    RoundOrder,
    SiteFacts,
    SiteResult,
    WireArray,
    check_update,
    manifest_of,
    pack,
    unpack,
)

__all__ = [
    "content_of",
    "facts_in",
    "loss_in",
    "order_content",
    "sort_replies",
    "update_in",
]

T = TypeVar("T")

FLOWER_ERRORS = {
    1: "its ClientApp could not be loaded; install the library of this version there",
    2: "its ClientApp raised an error; the site's own log has more",
    5: "its SuperNode went away; start it again",
    7: "it did not accept the app bundle",
    8: "its ClientApp ended before its answer, out of memory perhaps",
}
"""What Flower's error codes mean; the text that comes with them is not repeated."""

LONGEST_REASON = 400


def order_content(order: RoundOrder, arrays: Arrays) -> RecordDict:
    """Return what the server sends: the order and the weights of the round."""
    packed = {
        name: Array(each.dtype, each.shape, RAW, each.data)
        for name, each in pack(arrays).items()
    }
    return RecordDict(
        {"order": ConfigRecord({**order.to_record()}), "arrays": ArrayRecord(packed)}
    )


def sort_replies(
    replies: Mapping[str, Message],
    slices: Mapping[str, int],
    read: Callable[[RecordDict], T],
) -> tuple[dict[str, T], dict[str, str]]:
    """Return what each site said, by its name, and why the others are refused.

    ``slices`` is what the sites said of themselves before: none changes its weight.
    """
    taken: dict[str, T] = {}
    refused: dict[str, str] = {}
    for site in sorted(replies):
        try:
            content = content_of(replies[site])
            _check_slices(content, slices[site])
            taken[site] = read(content)
        except CTFlowError as error:
            refused[site] = str(error)
    return taken, refused


def content_of(reply: Message) -> RecordDict:
    """Return the content of a reply; a reply that is an error is raised as ours."""
    if reply.has_error():
        code = reply.error.code
        raise UpdateError(FLOWER_ERRORS.get(code, f"Flower's error code {code}"))
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


def update_in(content: RecordDict, start: Arrays) -> SiteResult:
    """Return what a site has trained from ``start``, checked in every respect."""
    arrays = content.get("arrays")
    if not isinstance(arrays, ArrayRecord):
        raise UpdateError("expected the weights of a site, got a reply without them")
    wire = {
        name: WireArray(each.dtype, tuple(each.shape), each.data)
        for name, each in arrays.items()
    }
    update = unpack(wire, manifest_of(start))
    check_update(update, start)
    return SiteResult(
        arrays=update,
        slices=_slices(content),
        loss_first=_number(content, "loss-first"),
        loss_last=_number(content, "loss-last"),
    )


def loss_in(content: RecordDict) -> float:
    """Return the loss that a site found."""
    return _number(content, "loss")


def _number(content: RecordDict, name: str) -> float:
    metrics = content.get("metrics")
    value = metrics.get(name) if isinstance(metrics, MetricRecord) else None
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise UpdateError(f"expected a finite number as {name}, got none")
    return float(value)


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
