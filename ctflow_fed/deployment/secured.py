"""A site's program with its desk beside it, where all sites are on one machine.

Between hospitals it is the launcher that answers the steps of a secure round and masks
what leaves (`ctflow_fed.deployment.site`); here it is done around the program.
"""

from collections.abc import Callable, Collection
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict

from ctflow_fed.deployment.certificates import (
    authority_certificate,
    identity_text,
    new_key,
    site_certificate,
)
from ctflow_fed.deployment.site.objects import masked_record
from ctflow_fed.deployment.site.secure import SECURE, SecureDesk, open_desk
from ctflow_fed.errors import CTFlowError, UpdateError
from ctflow_fed.federation import (
    RoundOrder,
    SiteState,
    WireArray,
    check_change,
    manifest_of,
    moved_from,
    norm_of,
    unpack,
)
from ctflow_fed.files import write_bytes, write_private

__all__ = ["certify", "secured"]

Program = Callable[[Message, Context], Message]


def certify(folder: Path, sites: Collection[str]) -> None:
    """Give each site a key and a certificate, in its own folder within a folder.

    The key of the authority is forgotten: another run makes all of it anew.
    """
    authority = new_key()
    issuer = authority_certificate(authority, "local")
    for site in sites:
        key = new_key()
        identity = identity_text(key, site_certificate(key, site, authority, issuer))
        write_private(folder / site / "site.pem", identity)
        write_bytes(folder / site / "ca.crt", issuer)
    write_bytes(folder / "ca.crt", issuer)


def secured(program: Program) -> Program:
    """Return a site's program that takes part in secure rounds.

    The context names the ``site`` and its ``state`` folder, where its key is.
    """

    def answered(message: Message, context: Context) -> Message:
        is_step = message.metadata.message_type == SECURE
        reply = None if is_step else program(message, context)
        if reply is not None and not _is_masked(message, reply):
            return reply
        site, state = (str(context.node_config[name]) for name in ("site", "state"))
        try:
            desk = open_desk(site, Path(state), Path(state) / "secure")
            question = dict(message.content["secure"])
            if reply is not None:
                reply.content["arrays"] = _masked(desk, message, reply, Path(state))
                return reply
            content = {"secure": ConfigRecord({**desk.answer(question)})}
        except CTFlowError as error:
            refusal = ConfigRecord({"site": site, "reason": str(error)})
            content = {"refusal": refusal}
        return Message(RecordDict({**content}), reply_to=message)

    return answered


def _is_masked(message: Message, reply: Message) -> bool:
    """Tell whether a reply holds an update that may leave in a sum only."""
    return "secure" in message.content and "arrays" in reply.content


def _masked(
    desk: SecureDesk, message: Message, reply: Message, state: Path
) -> ArrayRecord:
    """Check an update against the weights that it was trained from, and mask it."""
    order = RoundOrder.from_record(message.content["order"])
    held = SiteState(state, order.job)
    start, sent = held.weights(), reply.content["arrays"]
    base = held.base(order.base) if order.base else start
    if start is None or base is None or not isinstance(sent, ArrayRecord):
        raise UpdateError("the weights that the order names are not here any more")
    wire = {
        name: WireArray(each.dtype, tuple(each.shape), each.data)
        for name, each in sent.items()
    }
    update = unpack(wire, manifest_of(start))
    check_change(moved_from(update, start), norm_of(base))
    question = dict(message.content["secure"])
    return masked_record(desk.mask(question, order, update, start))
