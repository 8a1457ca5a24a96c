"""The rounds of a job as TensorBoard events, beside rounds.jsonl."""

import importlib.util
import math
import shutil
import time
from collections.abc import Iterator

from ctflow_fed.federation.ledger import Ledger
from ctflow_fed.federation.round_record import RoundRecord

__all__ = ["Board"]

EVENTS = "events"
NUMBERS = (
    *("loss_after", "train_loss_first", "train_loss_last"),
    *("seconds", "sent", "received"),
)
BY_SITE = ("losses", "moved", "epsilon")


class Board:
    """Writes ``events/`` in a job's folder; without tensorboardX it writes nothing.

    What is there is written anew from the ledger, so that no round is in it twice.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._writer = None
        if importlib.util.find_spec("tensorboardX") is None:
            return
        from tensorboardX.event_file_writer import EventsWriter

        folder = ledger.folder / EVENTS
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self._writer = EventsWriter(str(folder / "job"))
        for record in ledger.records:
            self.add(record)

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()

    def add(self, record: RoundRecord) -> None:
        """Add a round that is finished; it is in the file when this returns."""
        if self._writer is None:
            return
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        values = [
            Summary.Value(tag=name, simple_value=value)
            for name, value in _scalars(record)
        ]
        event = Event(wall_time=time.time(), step=record.round)
        event.summary.CopyFrom(Summary(value=values))
        self._writer.write_event(event)
        self._writer.flush()


def _scalars(record: RoundRecord) -> Iterator[tuple[str, float]]:
    """Yield all numbers of a record by their names; those of sites as KEY/SITE."""
    for key in NUMBERS:
        if not math.isnan(value := getattr(record, key)):
            yield key, value
    for key in BY_SITE:
        for site, value in getattr(record, key).items():
            yield f"{key}/{site}", value
    yield "refused", len(record.refused)
