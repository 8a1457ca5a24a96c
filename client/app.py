"""The ClientApp of a site: it answers the server with numbers about its own store.

Three things may be asked: what the site has (query), to train the weights of a round
(train), and the loss of some weights (evaluate). The SuperNode's node config holds
``site``, the name; ``store``, the folder; and optionally ``threads``, the CPU threads.
No error of a site travels as it was raised: only our own sentences do, which quote no
data, and of any other error its kind.
"""

import logging
from collections.abc import Callable
from pathlib import Path

import torch
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp

from ctflow_fed.ct.store import LatentStore
from ctflow_fed.errors import CTFlowError, SettingsError, UpdateError
from ctflow_fed.federation import (
    RAW,
    RoundOrder,
    WireArray,
    check_site_name,
    facts_of,
    local_loss,
    local_round,
    pack,
    receipt,
)

__all__ = ["app"]

log = logging.getLogger(__name__)
app = ClientApp()


@app.query()
def preflight(message: Message, context: Context) -> Message:
    """Say what the store holds and which version is installed here."""

    def work(store: LatentStore, site: str) -> RecordDict:
        facts = ConfigRecord({**facts_of(store, site).to_record()})
        return RecordDict({"facts": facts})

    return _answer(message, context, work)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the weights of a round and send them back with two losses."""

    def work(store: LatentStore, site: str) -> RecordDict:
        order, wire = _received(message)
        result = local_round(store, order, wire, site)
        arrays = {
            name: Array(each.dtype, each.shape, RAW, each.data)
            for name, each in pack(result.arrays).items()
        }
        metrics = MetricRecord(
            {
                "num-examples": result.slices,
                "loss-first": result.loss_first,
                "loss-last": result.loss_last,
            }
        )
        return RecordDict(
            {
                "receipt": ConfigRecord({**receipt(order, site, store.header)}),
                "arrays": ArrayRecord(arrays),
                "metrics": metrics,
            }
        )

    return _answer(message, context, work)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Send the loss of the weights that came."""

    def work(store: LatentStore, site: str) -> RecordDict:
        order, wire = _received(message)
        loss = local_loss(store, order, wire)
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


def _received(message: Message) -> tuple[RoundOrder, dict[str, WireArray]]:
    """Return the order and the arrays of a message of the server."""
    content = message.content
    order, arrays = content.get("order"), content.get("arrays")
    if not isinstance(order, ConfigRecord) or not isinstance(arrays, ArrayRecord):
        raise UpdateError("expected an order and arrays, got a message without them")
    wire = {
        name: WireArray(each.dtype, tuple(each.shape), each.data)
        for name, each in arrays.items()
    }
    return RoundOrder.from_record(order), wire
