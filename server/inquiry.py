"""One question to several sites: asked again where it was lost, and never without end.

An order is lost when the process that has it dies, for Flower hands it out once. A site
begins a round that it is asked again as it began it before, so that it answers the
same, and one answer of it counts.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping

from flwr.app import Message
from flwr.serverapp import Grid

from server.sites import POLL_SECONDS, Roster
from server.strategy import is_gone

__all__ = ["Inquiry"]

RECHECK_SECONDS = 5.0
TRIES = 3
"""How often a site is asked the same."""

Write = Callable[[str, int, Message | None], Message | None]


class Inquiry:
    """A question that is out at some sites.

    ``write(site, node, reply)`` gives the message for a site's node: the first one or
    one that was lost where there is no reply, or else another one after this reply,
    None where that is the answer. ``on_answer`` hears who has answered.
    """

    def __init__(
        self,
        grid: Grid,
        roster: Roster,
        write: Write,
        on_answer: Callable[[str], None],
    ) -> None:
        self._grid, self._roster, self._write = grid, roster, write
        self._on_answer = on_answer
        self._replies: dict[str, Message] = {}
        self._pending: dict[str, str] = {}
        self._away: dict[str, Message | None] = {}
        self._tries: Counter[str] = Counter()
        self._arrivals: dict[str, int] = {}

    def answers(
        self, nodes: Mapping[str, int], seconds: float, grace: float, least: int
    ) -> dict[str, Message]:
        """Ask the sites of some nodes and return the replies that come, by site.

        All are waited for as long as ``seconds``, but those whose node goes away only
        until the others have answered, and for another ``grace`` where these are
        fewer than ``least``.
        """
        self._send(nodes)
        now = time.monotonic()
        end, give_up, recheck = now + seconds, now + grace, now + RECHECK_SECONDS
        while self._awaits(least, now < give_up) and now < end:
            self._hear()
            if now > recheck:
                self._look()
                recheck = now + RECHECK_SECONDS
            if self._pending:
                give_up = now + grace
            if self._pending or self._away:
                time.sleep(POLL_SECONDS)
            now = time.monotonic()
        gone = {site: reply for site, reply in self._away.items() if reply is not None}
        return {**self._replies, **gone}

    def _awaits(self, least: int, is_waiting: bool) -> bool:
        few = len(self._replies) < least
        return bool(self._pending) or (bool(self._away) and few and is_waiting)

    def _hear(self) -> None:
        """Take in what was answered."""
        for reply in self._grid.pull_messages(list(self._pending)):
            site = self._pending.pop(reply.metadata.reply_to_message_id, None)
            if site is not None:  # it answers what is asked, and for the first time
                self._take(site, reply)

    def _take(self, site: str, reply: Message) -> None:
        if is_gone(reply):
            self._away[site] = reply
            return
        another = None
        if self._tries[site] < TRIES:
            node = self._roster.nodes.get(site, reply.metadata.src_node_id)
            another = self._write(site, node, reply)
        if another is None:
            self._replies[site] = reply
            self._on_answer(site)
        else:
            self._push({site: another})

    def _look(self) -> None:
        """Ask those again who have come back, as another process."""
        nodes = self._roster.refresh()
        for identity, site in list(self._pending.items()):
            if site not in nodes or self._is_other(site):
                del self._pending[identity]
                self._away[site] = None
        back = [s for s in self._away if s in nodes and self._tries[s] < TRIES]
        self._send({site: nodes[site] for site in back})

    def _is_other(self, site: str) -> bool:
        """Tell whether a site has come anew since it was asked last."""
        return self._roster.arrivals[site] != self._arrivals[site]

    def _send(self, nodes: Mapping[str, int]) -> None:
        written = {site: self._write(site, node, None) for site, node in nodes.items()}
        self._push({site: each for site, each in written.items() if each is not None})

    def _push(self, messages: Mapping[str, Message]) -> None:
        """Send messages and note by their ids whose answer each awaits."""
        if messages:
            self._grid.push_messages(list(messages.values()))
        for site, message in messages.items():
            self._pending[message.metadata.message_id] = site
            self._away.pop(site, None)
            self._tries[site] += 1
            self._arrivals[site] = self._roster.arrivals[site]
