"""Arrays in Flower's messages: as they are, or as the names of shards.

On one machine the shards of a message are carried from folder to folder; between
hospitals the site's launcher does the same over `shard_link`.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict

from ctflow_fed.errors import IncompleteError
from ctflow_fed.federation import (
    RAW,
    Cargo,
    Shard,
    WireArray,
    shards_from_record,
    shards_named,
    shards_to_record,
)

__all__ = ["FolderLink", "cargo_in", "carrying", "record_of", "shards_in"]


def record_of(cargo: Cargo) -> ArrayRecord | ConfigRecord:
    """Return the record that stands for arrays in a message."""
    if isinstance(cargo, tuple):
        return ConfigRecord({**shards_to_record(cargo)})
    return ArrayRecord(
        {
            name: Array(each.dtype, each.shape, RAW, each.data)
            for name, each in cargo.items()
        }
    )


def cargo_in(content: RecordDict, name: str) -> Cargo | None:
    """Return the arrays that the content of a message has under a name, if any.

    Raises ``UpdateError`` where the shards are named in another way than ours.
    """
    record = content.get(name)
    if isinstance(record, ConfigRecord):
        return shards_from_record(record)
    if not isinstance(record, ArrayRecord):
        return None
    return {
        name: WireArray(each.dtype, tuple(each.shape), each.data)
        for name, each in record.items()
    }


def shards_in(message: Message) -> tuple[Shard, ...]:
    """Return all shards that a message names."""
    if message.has_error():
        return ()
    return shards_named(message.content.config_records)


class FolderLink:
    """The way of a site to shards in a folder of the same machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def fetch(self, shards: Sequence[Shard], folder: Path) -> None:
        """Bring shards into a folder, and remove all else from it."""
        shutil.rmtree(folder, ignore_errors=True)
        for shard in shards:
            self._copy(self._folder / "down" / shard.digest, folder / shard.digest)

    def send(self, shards: Sequence[Shard], folder: Path, site: str) -> None:
        """Put shards of a folder into the site's places, in their order."""
        for number, shard in enumerate(shards):
            place = self._folder / "up" / site / f"{number:02d}"
            self._copy(folder / shard.digest, place)

    def _copy(self, source: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(source, target)
        except FileNotFoundError:
            raise IncompleteError(
                "a shard of the message is gone; another order has taken its place"
            ) from None


Program = Callable[[Message, Context], Message]


def carrying(program: Program, folder: Path) -> Program:
    """Return a site's program with its shards carried to and from a folder.

    The context names the ``site`` and its ``state`` folder.
    """
    link = FolderLink(folder)

    def carried(message: Message, context: Context) -> Message:
        state = Path(str(context.node_config["state"]))
        link.fetch(shards_in(message), state / "inbox")
        reply = program(message, context)
        site = str(context.node_config["site"])
        link.send(shards_in(reply), state / "outbox", site)
        shutil.rmtree(state / "outbox", ignore_errors=True)
        return reply

    return carried
