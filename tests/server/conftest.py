"""A federation without a network: the real client answers within this process."""

import hashlib
import shutil
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import pytest

from ctflow_fed.errors import UpdateError
from ctflow_fed.federation import FederationSettings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what Flower imports warns about click 9
    from flwr.app import Context, Message, RecordDict
    from flwr.proto.node_pb2 import NodeInfo
    from flwr.serverapp import Grid
    from flwr.supercore.fab import Fab
    from flwr.supercore.inflatable.inflatable_object import (
        get_all_nested_objects,
        get_object_tree,
        iterate_object_tree,
    )
    from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
    from flwr.supercore.run import Run
    from flwr.supercore.task_identity import TaskIdentity

    from client.app import app as client
    from ctflow_fed.deployment.cargo import FolderLink, shards_in
    from ctflow_fed.deployment.site.connection import GatedConnection
    from ctflow_fed.deployment.site.exchange import Flower
    from ctflow_fed.deployment.site.site import Site

Answer = Callable[[Message, Context], Message | None]
BUNDLE = b"the programs"


class DirectGrid(Grid):
    """Sites as nodes 1, 2, ...; ``answers`` may put another answer in a site's place.

    An answer of ``None`` is a site that stays silent. ``keys`` are those of nodes,
    ``started`` is when each was started; ``shards`` is the folder through which shards
    go.
    """

    def __init__(self, stores: dict[str, Path], **answers: Answer) -> None:
        TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
        self.sent: list[Message] = []
        self.answers = answers
        self.nodes = dict(enumerate(stores, start=1))
        self.keys: dict[int, bytes] = {}
        self.started: dict[int, str] = {}
        self.shards = Path("shards")
        self._stores = stores
        self._replies: dict[str, Message] = {}

    def set_run(self, run: object) -> None:
        raise NotImplementedError

    @property
    def run(self) -> object:
        raise NotImplementedError

    def create_message(self, *parts: object) -> Message:
        raise NotImplementedError

    def send_and_receive(self, messages: object, *, timeout: object = None) -> object:
        raise NotImplementedError

    def get_node_ids(self) -> list[int]:
        return list(self.nodes)

    def get_nodes(self) -> list[NodeInfo]:
        return [
            NodeInfo(
                node_id=node,
                public_key=self.keys.get(node, b""),
                last_activated_at=self.started.get(node, ""),
            )
            for node in self.nodes
        ]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        ready = [each for each in message_ids if each in self._replies]
        return [self._replies.pop(each) for each in ready]

    def _push(self, message: Message) -> str:
        identity = f"message-{len(self.sent)}"
        message.metadata.__dict__["_message_id"] = identity
        self.sent.append(message)
        site = self.nodes[message.metadata.dst_node_id]
        store = self._stores[site]
        state = store.parent / ".ctflow-state" / site
        config = {"site": site, "store": str(store), "threads": 1}
        context = Context(1, 1, config, RecordDict(), {})
        link = FolderLink(self.shards)
        link.fetch(shards_in(message), state / "inbox")
        reply = self.answers.get(site, client)(message, context)
        if reply is not None:
            with suppress(UpdateError):  # a hostile site names shards that are none
                link.send(shards_in(reply), state / "outbox", site)
            self._replies[identity] = reply
        return identity


class Gated:
    """A site behind its gate: what a SuperNode does with a message, in this process.

    ``bundle`` is what comes as the app bundle of which the digest was approved.
    """

    def __init__(
        self, site: Site, program: Answer = client, bundle: bytes = BUNDLE
    ) -> None:
        digest = hashlib.sha256(BUNDLE).hexdigest()
        (site.kit / "approved").write_text(f"{digest}\n")
        run, fab = Run.create_empty(1), Fab(digest, bundle, {})
        run.fab_hash = digest
        self._state, self._store, self._program = site.state, site.store, program
        self._inbox: list[tuple[Message, object]] = []
        self._outbox: dict[str, bytes] = {}
        self._sent: dict[str, bytes] = {}
        flower = Flower(
            1,
            lambda: self._inbox.pop() if self._inbox else None,
            self._take,
            lambda _: run,
            lambda *_: fab,
            lambda _, identity: self._outbox[identity],
            lambda run, session, identity, content: self._sent.update(
                {identity: content}
            ),
            lambda *_: None,
        )
        self._gate = GatedConnection(flower, site).functions()
        self._name = site.name

    def _take(self, message: Message, tree, seconds: float):
        self._root = tree.object_id
        return {each.object_id for each in iterate_object_tree(tree)}, ""

    def __call__(self, message: Message, context: Context) -> Message:
        nested = get_all_nested_objects(message)
        self._outbox = {name: each.deflate() for name, each in nested.items()}
        self._inbox.append((message, get_object_tree(message)))
        if self._gate.receive() is not None:
            config = {"site": self._name, "store": str(self._store), "threads": 1}
            context.node_config = {**config, "state": str(self._state)}
            reply = self._program(message, context)
            objects = get_all_nested_objects(reply)
            wanted, _ = self._gate.send(reply, get_object_tree(reply), 0.0)
            for identity, each in objects.items():
                if identity in wanted:
                    self._gate.push_object(1, "", identity, each.deflate())
        return inflate_object_from_contents(self._root, dict(self._sent))


@pytest.fixture(scope="session")
def gated() -> type[Gated]:
    """The class: a site behind its gate."""
    return Gated


@pytest.fixture
def stores(haar_store: Path, tmp_path: Path) -> dict[str, Path]:
    """Two sites: `a` with two studies and `b` with three."""
    folders = {name: tmp_path / "stores" / name for name in ("a", "b")}
    for folder in folders.values():
        shutil.copytree(haar_store, folder)
    index = folders["a"] / "index.jsonl"
    lines = index.read_text().splitlines(keepends=True)
    index.write_text("".join(lines[:2]))
    return folders


@pytest.fixture
def settings(tmp_path: Path) -> FederationSettings:
    """Two rounds of two steps at the smallest size."""
    return FederationSettings(
        out=str(tmp_path / "job"),
        sites=("a", "b"),
        rounds=2,
        steps=2,
        preset="nano",
        batch_clips=2,
        wait_seconds=1.0,
        round_seconds=1.0,
    )


@pytest.fixture
def direct_grid() -> type[DirectGrid]:
    """The class, for a test module cannot import its conftest."""
    return DirectGrid


@pytest.fixture(scope="session")
def stopping_in() -> Callable[[int], Answer]:
    """A function: answer as the client does until a round that kills the server."""

    def stopping(number: int) -> Answer:
        def answer(message: Message, context: Context) -> Message:
            if message.metadata.group_id == str(number):
                raise KeyboardInterrupt
            return client(message, context)

        return answer

    return stopping
