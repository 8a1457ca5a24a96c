"""Flower's messages as they travel: objects of bytes, known by their SHA-256.

An object is a head, "KIND CHILDREN LENGTH", a zero byte and a body; an array's numbers
lie in chunks that are its children. The gate reads and rewrites the small objects and
leaves the chunks where they are, so that weights are not copied.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_body,
    get_object_children_ids_from_object_content,
    get_object_id,
    get_object_type_from_object_content,
)
from numpy.typing import NDArray

from ctflow_fed.deployment.site.gate import WireLike
from ctflow_fed.errors import UpdateError
from ctflow_fed.federation import RAW, Shard, cargo_bytes

__all__ = [
    "Content",
    "Dispatch",
    "dispatch_of",
    "masked_record",
    "objects_of",
    "read_content",
]

SMALL: dict[str, type[ConfigRecord] | type[MetricRecord]] = {
    "ConfigRecord": ConfigRecord,
    "MetricRecord": MetricRecord,
}
Objects = Mapping[str, bytes]


@dataclass
class Content:
    """What a message holds: its small records by name, arrays, and their objects."""

    records: dict[str, dict[str, object]] = field(default_factory=dict)
    arrays: dict[str, dict[str, WireLike]] = field(default_factory=dict)
    array_objects: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Dispatch:
    """A message that is ready to be sent: without content, and all of its objects."""

    message: Message
    tree: ObjectTree
    objects: dict[str, bytes]
    shards: tuple[Shard, ...] = ()

    @property
    def bytes(self) -> int:
        """How many bytes travel, in the message and in the shards that it names."""
        return sum(map(len, self.objects.values())) + cargo_bytes(self.shards)


def read_content(root: str, objects: Objects) -> Content:
    """Read the objects of a message; what is not of their form raises ``UpdateError``.

    An error, which has no content, gives an empty one.
    """
    try:
        children = get_object_children_ids_from_object_content(objects[root])
        return _read_records(objects, children[0]) if children else Content()
    except (AttributeError, IndexError, KeyError, RecursionError):
        raise UpdateError("the message is not whole, or not of Flower's form") from None
    except (TypeError, ValueError):
        raise UpdateError("the message is not of Flower's form") from None


def _read_records(objects: Objects, identity: str) -> Content:
    content = Content()
    for name, each in _references(objects[identity]).items():
        kind = get_object_type_from_object_content(objects[each])
        if kind == "ArrayRecord":
            arrays = _references(objects[each])
            content.arrays[name] = {k: _array(objects, v) for k, v in arrays.items()}
            content.array_objects[name] = each
        else:
            record = SMALL[kind].inflate(objects[each])
            content.records[name] = dict(record)
    return content


def _references(content: bytes) -> dict[str, str]:
    """Return the children of a record or of a dict of records, by name."""
    body = json.loads(content[content.index(b"\0") + 1 :])
    return {str(name): str(identity) for name, identity in body.items()}


def _array(objects: Objects, identity: str) -> WireLike:
    content = objects[identity]
    children = get_object_children_ids_from_object_content(content)
    body = json.loads(content[content.index(b"\0") + 1 :])
    chunks = (objects[children[number]] for number in body["arraychunk_ids"])
    pieces = tuple(memoryview(each)[each.index(b"\0") + 1 :] for each in chunks)
    shape = tuple(int(length) for length in body["shape"])
    return WireLike(str(body["dtype"]), shape, str(body["stype"]), pieces)


def dispatch_of(
    reply: Message,
    records: Mapping[str, ConfigRecord | MetricRecord],
    arrays: Mapping[str, str] | None = None,
    objects: Objects | None = None,
    shards: tuple[Shard, ...] = (),
) -> Dispatch:
    """Return a reply with these records, and with arrays whose objects exist already.

    ``reply`` has the metadata, or an error; ``arrays`` are the objects of array
    records by the name of the record, ``shards`` what is sent beside.
    """
    kept = {name: _tree(objects or {}, each) for name, each in (arrays or {}).items()}
    new = {each.object_id: each.deflate() for each in records.values()}
    trees = [*kept.values(), *(ObjectTree(object_id=each) for each in new)]
    for tree in kept.values():
        new |= {each: (objects or {})[each] for each in _identities(tree)}
    if not reply.has_error():
        names = {name: each.object_id for name, each in records.items()}
        body = json.dumps({**names, **(arrays or {})}).encode()
        content = _object("RecordDict", trees, body)
        trees = [ObjectTree(object_id=get_object_id(content), children=trees)]
        new[trees[0].object_id] = content
    body = get_object_body(reply.deflate(), Message)
    content = _object("Message", trees, body)
    root = ObjectTree(object_id=get_object_id(content), children=trees)
    new[root.object_id] = content
    reply.metadata.__dict__["_message_id"] = root.object_id
    return Dispatch(reply, root, new, shards)


def masked_record(masked: Mapping[str, NDArray[np.uint32]]) -> ArrayRecord:
    """Return masked arrays as they travel: little-endian, as they are."""
    return ArrayRecord(
        {
            name: Array("uint32", value.shape, RAW, value.astype("<u4").tobytes())
            for name, value in masked.items()
        }
    )


def objects_of(record: ArrayRecord) -> dict[str, bytes]:
    """Return a record and all that hangs on it as objects, itself the last."""
    nested = get_all_nested_objects(record)
    return {identity: each.deflate() for identity, each in nested.items()}


def _object(kind: str, children: list[ObjectTree], body: bytes) -> bytes:
    identities = ",".join(dict.fromkeys(each.object_id for each in children))
    return f"{kind} {identities} {len(body)}".encode() + b"\0" + body


def _tree(objects: Objects, identity: str) -> ObjectTree:
    children = get_object_children_ids_from_object_content(objects[identity])
    return ObjectTree(
        object_id=identity, children=[_tree(objects, each) for each in children]
    )


def _identities(tree: ObjectTree) -> list[str]:
    below = [each for child in tree.children for each in _identities(child)]
    return [*below, tree.object_id]
