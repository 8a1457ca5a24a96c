"""Who is there, and asking them: names for nodes, and no wait without an end."""

import logging
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from ctflow_fed.deployment.registry import read_registry
from ctflow_fed.errors import CTFlowError, IncompleteError, MismatchError
from ctflow_fed.federation import SiteFacts, agreed_header
from server.strategy import content_of, facts_in

__all__ = ["Roster", "ask"]

POLL_SECONDS = 0.2

log = logging.getLogger(__name__)


class Roster:
    """The sites of a job that have answered the preflight question, by their names.

    With ``keys``, the folder of the sites' public keys, a node is the site whose key it
    has, whatever it says, and one without such a key is no site. Without, a node tells
    its name.

    The first node of a name is the site for as long as it is present. Another one is
    asked again only when the first has gone, as it has when a SuperNode was started
    again, for that may be another node to Flower.

    In a ``private`` job the sites are asked for no number, and one that tells some, or
    none in any other job, cannot take part.
    """

    def __init__(
        self,
        grid: Grid,
        sites: tuple[str, ...],
        keys: Path | None = None,
        *,
        private: bool = False,
    ) -> None:
        self._private = private
        self.facts: dict[str, SiteFacts] = {}
        self._grid, self._sites, self._keys = grid, sites, keys
        self._registered: dict[int, str] = {}
        self._nodes: dict[str, int] = {}
        self._asked: set[int] = set()
        self._pending: dict[str, int] = {}
        self._rivals: dict[int, str] = {}
        self._refused: dict[str, str] = {}
        self._failed: dict[int, str] = {}

    def wait(self, seconds: float, without: Collection[str] = ()) -> None:
        """Return once every site but those ``without`` has answered.

        Raises ``MismatchError`` when a site cannot take part, and ``IncompleteError``
        with the names of those that have not answered in time.
        """
        end = time.monotonic() + seconds
        named = set(self._sites) - set(without)
        while missing := sorted(named - set(self.refresh())):
            for site in missing:
                if site in self._refused:
                    raise MismatchError(f"{site}: {self._refused[site]}")
            if time.monotonic() > end:
                raise IncompleteError(
                    f"no answer from {', '.join(missing)} within {seconds:g} s"
                    f"{self._failures()}; start the SuperNodes of these sites, then "
                    "run the job again"
                )
            time.sleep(POLL_SECONDS)

    def refresh(self) -> dict[str, int]:
        """Ask who is new, hear who has answered, and return the node of each site."""
        present = self._present()
        self._forget_all_but(present)
        self._question(sorted(present - self._asked))
        for reply in self._grid.pull_messages(list(self._pending)):
            node = self._pending.pop(reply.metadata.reply_to_message_id, None)
            if node in present:
                self._hear(node, reply)
        return dict(self._nodes)

    def contested(self) -> dict[str, str]:
        """Return the sites whose name a second SuperNode claims, and what was done."""
        why = "a second SuperNode claims its name; the first is kept"
        return dict.fromkeys(self._rivals.values(), why)

    def why_absent(self, site: str) -> str:
        """Return what is known of why a site has no node."""
        if site in self._refused:
            return self._refused[site]
        return f"its SuperNode is not connected{self._failures()}; start it again"

    def why_silent(self, site: str, seconds: float) -> str:
        """Return what is known of why the node of a site did not answer in time."""
        contested = site in self._rivals.values()
        claim = "; a second SuperNode claims its name" if contested else ""
        return f"no answer within {seconds:g} s{claim}"

    def _present(self) -> set[int]:
        """Return the nodes that are connected; with keys those of the job's sites.

        Keys are read anew: who is revoked during a job takes part no longer.
        """
        if self._keys is None:
            return set(self._grid.get_node_ids())
        registry = read_registry(self._keys)
        named = {n.node_id: registry.get(n.public_key) for n in self._grid.get_nodes()}
        self._registered = {n: s for n, s in named.items() if s in self._sites}
        return set(self._registered)

    def _failures(self) -> str:
        """Say why nodes could not answer for now, if there are any."""
        reasons = "; ".join(sorted(set(self._failed.values())))
        return f" (a SuperNode could not answer: {reasons})" if reasons else ""

    def _forget_all_but(self, present: set[int]) -> None:
        """Drop the nodes that have gone; who claimed their names may be asked again."""
        self._nodes = {s: node for s, node in self._nodes.items() if node in present}
        self._failed = {n: why for n, why in self._failed.items() if n in present}
        held = {n: s for n, s in self._rivals.items() if s in self._nodes}
        self._asked &= present - (set(self._rivals) - set(held))
        self._rivals = {n: s for n, s in held.items() if n in present}

    def _question(self, nodes: list[int]) -> None:
        asked = {"private": ConfigRecord({})} if self._private else {}
        messages = [
            Message(RecordDict({**asked}), node, MessageType.QUERY) for node in nodes
        ]
        if messages:
            self._grid.push_messages(messages)
        for message, node in zip(messages, nodes, strict=True):
            self._pending[message.metadata.message_id] = node
            self._asked.add(node)

    def _hear(self, node: int, reply: Message) -> None:
        """Take in a site that is named in the job, is the first, and fits the others.

        One that fails or is refused is asked again.
        """
        name = self._name_of(node, reply)
        self._failed.pop(node, None)
        if name and name not in self._sites:
            log.warning("a site that the job does not name is left out")
            return
        if name in self._nodes:
            log.warning("two nodes are called %s; the first is kept", name)
            self._rivals[node] = name
            return
        try:
            facts = facts_in(content_of(reply))
            _check_name(facts, name)
            _check_counts(facts, private=self._private)
            agreed_header([*self.facts.values(), facts])
        except CTFlowError as error:
            log.warning("a site cannot take part: %s", error)
            self._asked.discard(node)
            if name:
                self._refused[name] = str(error)
            else:
                self._failed[node] = str(error)
            return
        self._refused.pop(name, None)
        self.facts[name] = facts
        self._nodes[name] = node

    def _name_of(self, node: int, reply: Message) -> str:
        """Return the name of the site that answers; an error has none, as it passes."""
        if self._keys is None or reply.has_error():
            return _name_in(reply)
        return self._registered[node]


def ask(
    grid: Grid,
    messages: Mapping[str, Message],
    seconds: float,
    again: Callable[[str, Message], Message | None] = lambda site, reply: None,
) -> dict[str, Message]:
    """Send each site its message and return the replies that come in time, by site.

    A reply for which ``again`` gives another message is answered with it, once a site.
    """
    pending: dict[str, str] = {}
    replies: dict[str, Message] = {}
    repeated: set[str] = set()
    _push(grid, messages, pending)
    end = time.monotonic() + seconds
    while pending and time.monotonic() < end:
        for reply in grid.pull_messages(list(pending)):
            site = pending.pop(reply.metadata.reply_to_message_id, None)
            if site is None:
                continue
            another = None if site in repeated else again(site, reply)
            if another is None:
                replies[site] = reply
            else:
                repeated.add(site)
                _push(grid, {site: another}, pending)
        if pending:
            time.sleep(POLL_SECONDS)
    return replies


def _push(grid: Grid, messages: Mapping[str, Message], pending: dict[str, str]) -> None:
    """Send messages and note by their ids whose answer each awaits."""
    if messages:
        grid.push_messages(list(messages.values()))
    pending.update({each.metadata.message_id: s for s, each in messages.items()})


def _check_name(facts: SiteFacts, name: str) -> None:
    if facts.site != name:
        raise MismatchError(
            "its node config has another site's name than its key is registered for; "
            "start it with the start.sh of its own kit"
        )


def _check_counts(facts: SiteFacts, *, private: bool) -> None:
    """Refuse numbers that a private job must not have, and their absence elsewhere."""
    if private and facts.slices:
        raise MismatchError(
            "it tells how much it holds, which a private job must not know; "
            "start it with the version of the server"
        )
    if not private and not facts.slices:
        raise MismatchError(
            "it does not tell how much it holds, as its site.toml demands noise; "
            "train privately, or leave it out"
        )


def _name_in(reply: Message) -> str:
    """Return the name that a refusal or the facts come with, or nothing."""
    if reply.has_error():
        return ""
    record = reply.content.get("refusal", reply.content.get("facts"))
    return str(record.get("site", "")) if isinstance(record, ConfigRecord) else ""
