"""What a site lets in and out: functions of its policy and of what a message holds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import time

from ctflow_fed.deployment.site.amounts import Holdings, Spent, check_amount
from ctflow_fed.deployment.site.policy import Policy, refusal
from ctflow_fed.errors import UpdateError
from ctflow_fed.federation import (
    COUNTS,
    PRIVATE_METRICS,
    RAW,
    Arrays,
    Manifest,
    RoundOrder,
    WireArray,
    moved_from,
    norm_of,
    shards_from_record,
    shards_to_record,
    unpack,
)
from ctflow_fed.training import PrivacyLedger

__all__ = [
    "KINDS",
    "WireLike",
    "arrays_in",
    "check_arrays",
    "check_order",
    "check_size",
    "check_spending",
    "clean_records",
    "read_order",
]

KINDS = ("query", "train", "evaluate")
RECORDS = {
    "query": {"facts"},
    "train": {"receipt", "arrays", "metrics"},
    "evaluate": {"receipt", "metrics"},
}
"""The records of an answer to each kind of question; nothing else leaves."""

FACTS = {"version", "site", "header", "studies", "slices", "spacing"}
RECEIPT = {"version", "round", "start", "site", "codec", "encoder"}
NEEDED: dict[str, tuple[str, ...]] = {
    "train": ("num-examples", "loss-first", "loss-last"),
    "evaluate": ("num-examples", "loss"),
}
"""The metrics of an answer, without which the server cannot use it."""

LONGEST_TEXT = 4000
LONGEST_REASON = 400

Values = Mapping[str, object]
"""The values of a record of texts and numbers."""


@dataclass(frozen=True)
class WireLike:
    """An array as it lies in a message: its bytes in pieces, not yet joined."""

    dtype: str
    shape: tuple[int, ...]
    stype: str
    pieces: tuple[bytes | memoryview, ...]


def read_order(values: object) -> RoundOrder:
    """Read the order of a message; one that cannot be read raises ``CTFlowError``."""
    if not isinstance(values, Mapping):
        raise UpdateError("expected an order of a round, got a message without one")
    return RoundOrder.from_record(values)


def check_order(
    policy: Policy,
    kind: str,
    order: RoundOrder,
    used: Spent,
    store: Holdings,
    now: time,
) -> None:
    """Refuse an order that asks for more than the site allows, and name the line.

    ``now`` is the local time. Raises ``UpdateError``.
    """
    if order.privacy is None:
        _check_metrics(policy, kind)
    if store.studies < policy.minimum_studies:
        what = f"{policy.minimum_studies} required, the site's store has fewer"
        raise refusal("minimum_studies", what)
    if policy.hours is not None and now not in policy.hours:
        span = f"{policy.hours.begin:%H:%M}-{policy.hours.end:%H:%M}"
        raise refusal("hours", f"{span} allowed, the order came at another time")
    if order.payload not in policy.payloads:
        allowed = ", ".join(policy.payloads) or "nothing"
        raise refusal("payloads", f"{allowed} allowed, the order has another")
    if order.base and order.base not in policy.base_models:
        raise refusal("base_models", "the order's base model is not approved")
    _check_offer(policy, kind, order)
    if kind == "train":
        check_amount(policy, order, used, store)


def _check_metrics(policy: Policy, kind: str) -> None:
    for name in NEEDED.get(kind, ()):
        if name not in policy.metrics:
            raise refusal("metrics", f"{name} may not leave, every answer has it")


def _check_offer(policy: Policy, kind: str, order: RoundOrder) -> None:
    """Refuse a round that does not protect the site as it demands."""
    noise = order.privacy.noise_multiplier if order.privacy else 0.0
    if noise < policy.minimum_noise:
        what = f"{policy.minimum_noise:g} required, the order is of {noise:g}"
        raise refusal("minimum_noise", what)
    if order.privacy is not None and kind == "evaluate":
        raise UpdateError("a loss has no noise: in a private job none may leave")
    if order.sites < policy.minimum_sites:
        what = f"{policy.minimum_sites} required, the order has {order.sites}"
        raise refusal("minimum_sites", what)
    if policy.secure_aggregation and not order.secure:
        raise refusal("secure_aggregation", "required, the order is without it")


def check_size(policy: Policy, size: int) -> None:
    """Refuse a message of more bytes than the site allows, whichever way it goes."""
    if size > policy.megabytes * 1e6:
        what = f"{policy.megabytes:g} allowed, the message has {size / 1e6:.6g}"
        raise refusal("megabytes", what)


def check_spending(order: RoundOrder, metrics: Values, ledger: PrivacyLedger) -> None:
    """Refuse a private update that the site's ledger does not bear out.

    All steps of the job had the noise of the order, they come to the epsilon that is
    told, and that is within the budget.
    """
    privacy = ledger.settings
    noise = {event.noise_multiplier for event in ledger.events}
    if (
        order.privacy != privacy
        or noise - {privacy.noise_multiplier}
        or not metrics["epsilon"] == ledger.epsilon() <= privacy.epsilon
    ):
        raise UpdateError(
            "the site's ledger of its privacy budget does not bear the answer out; "
            "look at it in the site's state folder"
        )


def clean_records(
    policy: Policy,
    kind: str,
    records: Mapping[str, Values],
    *,
    private: bool = False,
) -> dict[str, dict[str, object]]:
    """Return the texts and numbers of an answer as they may leave, by record.

    Numbers that tell of the store are rounded, metrics that may not leave are dropped.
    With a ``private`` update exactly those leave that are part of the promise; a site
    that demands noise tells no counts at all. Raises ``UpdateError`` where there is
    anything that an answer does not have.
    """
    if set(records) in ({"refusal"}, {"lacking"}):
        return {name: _clean_words(name, each) for name, each in records.items()}
    if not set(records) <= RECORDS[kind]:
        raise UpdateError("the answer holds more than an answer has and was kept back")

    def clean(name: str, values: Values) -> dict[str, object]:
        if name == "metrics":
            return _clean_metrics(policy, kind, values, private=private)
        if name == "arrays":
            return {**shards_to_record(shards_from_record(values))}
        return _clean_texts(policy, name, values)

    return {name: clean(name, values) for name, values in records.items()}


def _clean_texts(policy: Policy, name: str, values: Values) -> dict[str, object]:
    if not set(values) <= {"facts": FACTS, "receipt": RECEIPT}[name]:
        raise UpdateError(f"the answer's {name} hold more than they have to")
    hidden = COUNTS if policy.minimum_noise > 0 else set()
    kept = {key: value for key, value in values.items() if key not in hidden}
    return {key: _clean(policy, key, value) for key, value in kept.items()}


def _clean_words(name: str, values: Values) -> dict[str, object]:
    keys = ("site", "reason") if name == "refusal" else ("site",)
    texts = {key: str(values.get(key, "")) for key in keys}
    return {
        key: "".join(c if c.isprintable() else " " for c in text)[:LONGEST_REASON]
        for key, text in texts.items()
    }


def _clean_metrics(
    policy: Policy, kind: str, values: Values, *, private: bool
) -> dict[str, object]:
    if private:
        if set(values) != set(PRIVATE_METRICS):
            raise UpdateError("a private update has other numbers than it may have")
        return dict(values)
    if not set(values) <= set(NEEDED.get(kind, ())):
        raise UpdateError("the answer has other metrics than an answer has")
    kept = {key: value for key, value in values.items() if key in policy.metrics}
    return {key: _clean_number(policy, value) for key, value in kept.items()}


def _clean(policy: Policy, key: str, value: object) -> object:
    if key in {"studies", "slices"}:
        return _clean_number(policy, value)
    if key == "spacing" and isinstance(value, list) and len(value) == 3:
        return [_clean_number(policy, each) for each in value]
    if (isinstance(value, str) and len(value) <= LONGEST_TEXT) or type(value) is int:
        return value
    raise UpdateError(f"the answer's {key} is not what an answer has")


def _clean_number(policy: Policy, value: object) -> int | float:
    """Round to the digits that may leave; a count stays one, NaN does not leave."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UpdateError("the answer has something else than a number in its place")
    if not math.isfinite(value):
        raise UpdateError("the answer holds numbers that are not finite")
    return type(value)(float(f"{value:.{policy.digits}g}"))


def check_arrays(
    policy: Policy, sent: Arrays, precision: str, start: Arrays, length: float
) -> None:
    """Refuse an update that moves the weights ``start`` too far.

    In float32 the weights travel, and otherwise their change. Raises ``UpdateError``
    for numbers that are not finite, and for a move of more than ``largest_norm`` times
    ``length``, that of the weights of the network.
    """
    change = moved_from(sent, start) if precision == "float32" else sent
    far = norm_of(change) / max(length, 1e-12)
    if not far <= policy.largest_norm:
        what = f"{policy.largest_norm:g} allowed, the weights moved {far:.3g}"
        raise refusal("largest_norm", what)


def arrays_in(
    sent: Mapping[str, WireLike], precision: str, manifest: Manifest
) -> Arrays:
    """Return the values of an update that came with its message.

    Raises ``UpdateError`` for other names, shapes or types than the manifest says, and
    for numbers that are not finite.
    """
    if any(array.stype != RAW for array in sent.values()):
        raise UpdateError("the answer has arrays of another form than those that came")
    wire = {
        name: WireArray(each.dtype, each.shape, b"".join(each.pieces))
        for name, each in sent.items()
    }
    return unpack(wire, manifest, precision)
