"""An update on its way out, measured by what lies in the site's own state."""

from collections.abc import Mapping
from typing import NamedTuple

from ctflow_fed.deployment.site.exchange import Question
from ctflow_fed.deployment.site.gate import arrays_in, check_arrays, check_spending
from ctflow_fed.deployment.site.objects import Content
from ctflow_fed.deployment.site.site import Site
from ctflow_fed.errors import UpdateError
from ctflow_fed.federation import Arrays, RoundOrder, Shard, manifest_of

__all__ = ["Update", "check_private", "checked_update"]


class Update(NamedTuple):
    """An update that was checked: to which order, from what weights, and its values."""

    order: RoundOrder
    start: Arrays
    sent: Arrays


def checked_update(
    site: Site, question: Question, content: Content, shards: tuple[Shard, ...]
) -> Update | None:
    """Measure an update, if there is any, against the weights that the order names.

    Those weights lie in the site's state, and count by their digest. Raises
    ``UpdateError`` where they do not, or where the policy does not let the update out.
    """
    if not shards and "arrays" not in content.arrays:
        return None
    order = question.order
    held = None if order is None else site.weights_of(order)
    if order is None or held is None:
        raise UpdateError(
            "site.toml, largest_norm: the weights that the order names are not "
            "here, so that the answer cannot be measured"
        )
    manifest = manifest_of(held[0])
    if shards:
        sent = site.sent(shards, manifest, order.precision)
    else:
        sent = arrays_in(content.arrays["arrays"], order.precision, manifest)
    check_arrays(site.policy, sent, order.precision, *held)
    return Update(order, held[0], sent)


def check_private(
    site: Site, question: Question, records: Mapping[str, Mapping[str, object]]
) -> None:
    """Compare what a private update tells with the ledger in the site's state.

    Raises ``UpdateError`` where they differ.
    """
    order, metrics = question.order, records.get("metrics")
    ledger = None if order is None else site.ledger_of(order)
    if order is None or ledger is None or metrics is None:
        raise UpdateError("a private update came without what it has spent")
    check_spending(order, metrics, ledger)
