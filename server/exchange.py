"""An order to the sites and their answers; no array is sent that a site has already."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from ctflow_fed.federation import (
    Arrays,
    Job,
    Parcel,
    Parcels,
    Reporter,
    RoundOrder,
    arrays_digest,
)
from server.inquiry import Inquiry
from server.sites import Roster
from server.strategy import (
    Sorted,
    Traffic,
    is_crash,
    is_lacking,
    order_content,
    sort_replies,
    traffic_in,
)

__all__ = ["Answers", "Exchange"]

T = TypeVar("T")


@dataclass(frozen=True)
class Answers(Sorted[T]):
    """The answers of the sites, who was silent, and what travelled."""

    silent: frozenset[str]
    traffic: Traffic


class Exchange:
    """Asks the sites of a job, and remembers which weights each of them holds.

    It is known from their answers. A server that was started again takes it that the
    sites of the last round hold the model that it ended with. Who lacks anything, be it
    the base of an adapter, says so and is sent everything.
    """

    def __init__(
        self, grid: Grid, roster: Roster, job: Job, reporter: Reporter
    ) -> None:
        self.grid, self.roster = grid, roster
        self._job, self._reporter = job, reporter
        self._held = _held_after(job)

    def ask(
        self,
        order: RoundOrder,
        arrays: Arrays,
        kind: str,
        read: Callable[[RecordDict, str], T],
        without: Collection[str],
        secure: Mapping[str, Mapping[str, str]] | None = None,
    ) -> Answers[T]:
        """Ask every site but those ``without`` about arrays; hear what they say.

        In a ``secure`` round those are asked for whom there is something beside the
        order.
        """
        job, settings = self._job, self._job.settings
        least, grace = settings.quorum, settings.wait_seconds
        nodes = self.present(without)
        if secure is not None:
            nodes = {site: nodes[site] for site in secure if site in nodes}
        parcels = Parcels(order, arrays, job.part, job.change, job.depot)
        post = _Post(order, kind, settings.round_seconds + 60, secure or {})
        filled: set[str] = set()

        def write(site: str, node: int, reply: Message | None) -> Message | None:
            if reply is None or is_crash(reply):
                parcel = parcels.for_holder(self._held.get(site, ""))
                return post.message(site, node, parcel)
            if is_lacking(reply) and site not in filled:
                filled.add(site)
                return post.message(site, node, parcels.everything)
            return None

        self._reporter.ask(kind, order.round_number, nodes)
        inquiry = Inquiry(self.grid, self.roster, write, self._reporter.hear)
        replies = inquiry.answers(nodes, settings.round_seconds, grace, least)
        heard = sort_replies(replies, order, self.roster.facts, read)
        for site in nodes:
            self._held[site] = order.start if site in heard.taken else ""
        silent = frozenset(nodes) - set(replies)
        refused = {**heard.refused, **self._unheard(nodes, silent, without)}
        traffic = sum(map(traffic_in, replies.values()), post.traffic)
        return Answers(heard.taken, refused, heard.wrong, silent, traffic)

    def present(self, without: Collection[str]) -> dict[str, int]:
        """Return the nodes of the sites that are there, but for those ``without``.

        Where fewer than a round needs are there, they are waited for.
        """
        settings = self._job.settings
        return self.roster.gather(settings.quorum, settings.wait_seconds, without)

    def _unheard(
        self,
        nodes: Mapping[str, int],
        silent: Collection[str],
        without: Collection[str],
    ) -> dict[str, str]:
        """Return why sites did not answer, or were not there to be asked."""
        seconds = self._job.settings.round_seconds
        absent = set(self._job.settings.sites) - set(nodes) - set(without)
        return {
            **{site: self.roster.why_silent(site, seconds) for site in silent},
            **{site: self.roster.why_absent(site) for site in absent},
        }


def _held_after(job: Job) -> dict[str, str]:
    """Return what the sites hold after the last finished round, as far as is known."""
    if not job.ledger.records or job.settings.is_private:  # then it evaluated nothing
        return {}
    last = job.ledger.records[-1]
    heard = set(last.slices) - set(last.refused)
    return dict.fromkeys(heard, arrays_digest(job.state.model))


class _Post:
    """The messages of one order, and what of arrays goes with them."""

    def __init__(
        self,
        order: RoundOrder,
        kind: str,
        seconds: float,
        secure: Mapping[str, Mapping[str, str]],
    ) -> None:
        self.traffic = Traffic()
        self._order, self._kind, self._seconds = order, kind, seconds
        self._secure = secure

    def message(self, site: str, node: int, parcel: Parcel) -> Message:
        """Return the order with a parcel for a site's node, and count it as sent."""
        self.traffic += Traffic(sent=parcel.bytes, shards=parcel.shards)
        content = order_content(self._order, parcel)
        if site in self._secure:
            content["secure"] = ConfigRecord({**self._secure[site]})
        group = str(self._order.round_number)
        return Message(content, node, self._kind, ttl=self._seconds, group_id=group)
