"""Who is there: names for nodes, and no wait without an end."""

import logging
import time
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from ctflow_fed.deployment.registry import read_registry
from ctflow_fed.errors import CTFlowError, IncompleteError, MismatchError
from ctflow_fed.federation import SiteFacts, agreed_header
from server.strategy import content_of, facts_in

__all__ = ["POLL_SECONDS", "Roster"]

POLL_SECONDS = 0.2

log = logging.getLogger(__name__)


class Roster:
    """The sites of a job that have answered the preflight question, by their names.

    With ``keys``, the folder of the sites' public keys, a node is the site whose key it
    has, whatever it says, and one without such a key is no site. Without, a node tells
    its name.

    The first node of a name is the site for as long as it is present. Another one is
    asked again only when the first has gone. A SuperNode that was started again has
    gone and come back, even where Flower never saw it go and calls it the same node.
    ``arrivals`` counts how often each site has come.

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
        self.arrivals: Counter[str] = Counter()
        self._grid, self._sites, self._keys = grid, sites, keys
        self._registered: dict[int, str] = {}
        self._activated: dict[int, str] = {}
        self._nodes: dict[str, int] = {}
        self._asked: set[int] = set()
        self._pending: dict[str, int] = {}
        self._rivals: dict[int, str] = {}
        self._refused: dict[str, str] = {}
        self._failed: dict[int, str] = {}

    @property
    def nodes(self) -> dict[str, int]:
        """The node of each site, as of the last `refresh`."""
        return dict(self._nodes)

    def wait(
        self, seconds: float, without: Collection[str] = (), least: int | None = None
    ) -> None:
        """Return once every site but those ``without`` has answered.

        Those that have not in time may be missing where ``least`` others have. Raises
        ``MismatchError`` when a site cannot take part, and ``IncompleteError`` with the
        names of those that are missing.
        """
        end = time.monotonic() + seconds
        named = set(self._sites) - set(without)
        while missing := sorted(named - set(self.refresh())):
            for site in missing:
                if site in self._refused:
                    raise MismatchError(f"{site}: {self._refused[site]}")
            if time.monotonic() > end:
                if least is not None and len(named) - len(missing) >= least:
                    return
                raise IncompleteError(
                    f"no answer from {', '.join(missing)} within {seconds:g} s"
                    f"{self._failures()}; start the SuperNodes of these sites, then "
                    "run the job again"
                )
            time.sleep(POLL_SECONDS)

    def gather(
        self, least: int, seconds: float, without: Collection[str]
    ) -> dict[str, int]:
        """Return the nodes of who is there, once these are ``least`` or time is up."""
        end = time.monotonic() + seconds
        while True:
            nodes = {s: n for s, n in self.refresh().items() if s not in without}
            if len(nodes) >= least or time.monotonic() > end:
                return nodes
            time.sleep(POLL_SECONDS)

    def refresh(self) -> dict[str, int]:
        """Ask who is new, hear who has answered, and return the node of each site."""
        before = self._activated
        present = self._present()
        self._forget_all_but({n for n in present if before.get(n) == self._since(n)})
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
        if site not in self._nodes:
            return self.why_absent(site)
        contested = site in self._rivals.values()
        claim = "; a second SuperNode claims its name" if contested else ""
        return f"no answer within {seconds:g} s{claim}"

    def _present(self) -> set[int]:
        """Return the nodes that are connected; with keys those of the job's sites.

        Keys are read anew: who is revoked during a job takes part no longer.
        """
        if self._keys is None:
            return set(self._grid.get_node_ids())
        registry, nodes = read_registry(self._keys), list(self._grid.get_nodes())
        named = {each.node_id: registry.get(each.public_key) for each in nodes}
        self._activated = {each.node_id: each.last_activated_at for each in nodes}
        self._registered = {n: s for n, s in named.items() if s in self._sites}
        return set(self._registered)

    def _since(self, node: int) -> str | None:
        """Return when a node was started, as far as that is known."""
        return self._activated.get(node)

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
        self.arrivals[name] += 1

    def _name_of(self, node: int, reply: Message) -> str:
        """Return the name of the site that answers; an error has none, as it passes."""
        if self._keys is None or reply.has_error():
            return _name_in(reply)
        return self._registered[node]


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
