"""How a SuperNode and its server speak, and what is said while it is being said."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from flwr.app import Message
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.fab import Fab
from flwr.supercore.run import Run

from ctflow_fed.federation import RoundOrder, Shard, cargo_bytes

__all__ = ["FLOWER", "Answer", "Flower", "Question"]

FLOWER = ("1.41.", "1.42.")
"""The versions whose functions these are."""


class Flower(NamedTuple):
    """What `http_request_response` yields: how a SuperNode speaks with its server."""

    node_id: int
    receive: Callable[[], tuple[Message, ObjectTree] | None]
    send: Callable[[Message, ObjectTree, float], tuple[set[str], str]]
    get_run: Callable[[int], Run]
    get_fab: Callable[[str, int], Fab]
    pull_object: Callable[[int, str], bytes]
    push_object: Callable[[int, str, str, bytes], None]
    confirm_message_received: Callable[[int, str], None]


@dataclass
class Question:
    """The question that is being answered, with all of its objects."""

    message: Message
    bundle: str
    objects: dict[str, bytes] = field(default_factory=dict)
    order: RoundOrder | None = None
    secure: Mapping[str, object] = field(default_factory=dict)
    shards: tuple[Shard, ...] = ()

    @property
    def bytes(self) -> int:
        """How many bytes came, or are to be fetched."""
        return sum(map(len, self.objects.values())) + cargo_bytes(self.shards)


@dataclass
class Answer:
    """An answer that is held back until its last object is there."""

    root: str
    has_error: bool
    seconds: float
    missing: set[str]
    objects: dict[str, bytes] = field(default_factory=dict)
