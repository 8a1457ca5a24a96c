"""The ClientApp of a site: it answers the server with numbers about its own store.

Three things may be asked: what the site has (query), to train the weights of a round
(train), and the loss of some weights (evaluate). In a private job no number leaves that
depends on a patient and has no noise: neither counts nor losses. To an order about
weights that the site does not hold it answers that it lacks them. The SuperNode's node
config holds ``site``, the name; ``store``, the folder; and optionally ``threads``, the
CPU threads, and ``state``, the folder of what the site keeps from message to message,
which is otherwise in .ctflow-state beside the store. No error of a site travels as it
was raised: only our own sentences do, which quote no data, and of any other its kind.
"""

import logging
from collections.abc import Callable
from pathlib import Path

import torch
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from ctflow_fed.ct.store import LatentStore
from ctflow_fed.deployment.cargo import cargo_in, record_of
from ctflow_fed.errors import CTFlowError, SettingsError, UpdateError
from ctflow_fed.federation import (
    Parcel,
    PrivateResult,
    RoundOrder,
    SiteResult,
    SiteState,
    check_site_name,
    facts_of,
    local_loss,
    local_round,
    open_parcel,
    private_round,
    receipt,
)

__all__ = ["app"]

log = logging.getLogger(__name__)
app = ClientApp()


@app.query()
def preflight(message: Message, context: Context) -> Message:
    """Say what the store holds and which version is installed here."""

    def work(store: LatentStore, site: str) -> RecordDict:
        facts = facts_of(store, site, private="private" in message.content)
        return RecordDict({"facts": ConfigRecord({**facts.to_record()})})

    return _answer(message, context, work)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the weights of a round and send them back with what may be told of it."""

    def work(store: LatentStore, site: str) -> RecordDict:
        order, parcel = _received(message)
        state = _state(context, site, order)
        opened = open_parcel(parcel, order, state)
        if opened is None:
            return _lacking(site)
        memory = state.memory_before(order.round_number)
        outbox = state.outbox
        result: SiteResult | PrivateResult
        if order.privacy is None:
            result = local_round(store, order, opened, site, memory, outbox)
        else:
            ledger = state.ledger(order.privacy)
            result = private_round(store, order, opened, site, memory, ledger, outbox)
        state.keep_memory(order.round_number, result.memory)
        return RecordDict(
            {
                "receipt": ConfigRecord({**receipt(order, site, store.header)}),
                "arrays": record_of(result.cargo),
                "metrics": MetricRecord({**result.metrics}),
            }
        )

    return _answer(message, context, work)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Send the loss of the weights that came."""

    def work(store: LatentStore, site: str) -> RecordDict:
        order, parcel = _received(message)
        opened = open_parcel(parcel, order, _state(context, site, order))
        if opened is None:
            return _lacking(site)
        loss = local_loss(store, order, opened)
        slices = sum(record.slices for record in store.records)
        metrics = MetricRecord({"num-examples": slices, "loss": loss})
        given = ConfigRecord({**receipt(order, site, store.header)})
        return RecordDict({"receipt": given, "metrics": metrics})

    return _answer(message, context, work)


def _answer(
    message: Message,
    context: Context,
    work: Callable[[LatentStore, str], RecordDict],
) -> Message:
    """Do the work on this site's store and reply, with a sentence where it fails."""
    site = context.node_config.get("site", "")
    try:
        name = check_site_name(site)
        torch.set_num_threads(_threads(context))
        content = work(_store(context), name)
    except CTFlowError as error:
        content = _refusal(site, str(error))
    except Exception as error:
        log.exception("the site could not answer")
        kind = type(error).__name__
        content = _refusal(site, f"an unexpected {kind}; the site's own log has more")
    return Message(content, reply_to=message)


def _refusal(site: object, reason: str) -> RecordDict:
    return RecordDict({"refusal": ConfigRecord({"site": str(site), "reason": reason})})


def _lacking(site: str) -> RecordDict:
    return RecordDict({"lacking": ConfigRecord({"site": site})})


def _store(context: Context) -> LatentStore:
    folder = context.node_config.get("store")
    if not isinstance(folder, str) or not folder:
        raise SettingsError(
            "expected the folder of the site's store as `store` in the node config; "
            'start the SuperNode with: --node-config \'site="a" store="/data/a"\''
        )
    return LatentStore.open(Path(folder))


def _threads(context: Context) -> int:
    threads = context.node_config.get("threads", torch.get_num_threads())
    if not isinstance(threads, int) or not 1 <= threads <= 1024:
        raise SettingsError("expected `threads` of 1 to 1024 in the node config")
    return threads


def _state(context: Context, site: str, order: RoundOrder) -> SiteState:
    """Return what the site keeps of a job, in a folder that is no part of its store."""
    store = Path(str(context.node_config["store"])).resolve()
    beside = store.parent / ".ctflow-state" / site
    folder = Path(str(context.node_config.get("state", beside))).resolve()
    if folder.is_relative_to(store):
        raise SettingsError(
            "expected a folder outside the site's store as `state` in the node config; "
            "name another one"
        )
    return SiteState(folder, order.job)


def _received(message: Message) -> tuple[RoundOrder, Parcel]:
    """Return the order of a message of the server, and the arrays that came with it."""
    order = message.content.get("order")
    if not isinstance(order, ConfigRecord):
        raise UpdateError("expected an order, got a message without one")
    content = message.content
    parcel = Parcel(
        weights=cargo_in(content, "arrays"),
        change=cargo_in(content, "change"),
        base=cargo_in(content, "base"),
    )
    return RoundOrder.from_record(order), parcel
