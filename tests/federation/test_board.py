"""What TensorBoard sees of a job."""

import sys
from contextlib import closing
from pathlib import Path

import pytest

from ctflow_fed.federation import Board, Ledger, RoundRecord

RECORD = {
    **{"slices": {"a": 3}, "moved": {"a": 0.1}, "refused": {"b": "x"}, "strikes": []},
    **{"train_loss_first": 1.0, "train_loss_last": 0.9, "loss_before": 1.0},
    **{"loss_after": 0.8, "losses": {"a": 0.7}, "seconds": 0.1, "sent": 6},
    **{
        "received": 4,
        "shards": 0,
        "digest": "0" * 64,
        "state": "",
        "epsilon": {},
        "spent": [],
        "attempts": 1,
    },
}


def record(number: int) -> RoundRecord:
    return RoundRecord.from_json({"round": number, **RECORD})


def events_in(folder: Path) -> list[tuple[str, int, float]]:
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in folder.iterdir():
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + length])
            found += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
            data = data[16 + length :]  # a length, the event, and two checksums
    return found


def test_every_round_is_there_once_however_often_the_job_was_begun(tmp_path: Path):
    pytest.importorskip("tensorboardX")
    ledger = Ledger.open(tmp_path, {"rounds": 3})
    with closing(Board(ledger)) as board:
        for number in (1, 2):
            ledger.commit(record(number), lambda folder: None)
            board.add(ledger.records[-1])
    with closing(Board(Ledger.open(tmp_path, {"rounds": 3}))) as board:
        board.add(record(3))

    events = events_in(tmp_path / "events")
    losses = [(step, value) for tag, step, value in events if tag == "losses/a"]
    assert losses == [(number, pytest.approx(0.7)) for number in (1, 2, 3)]
    assert ("refused", 2, 1.0) in events


def test_a_job_needs_no_tensorboard(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    Board(Ledger.open(tmp_path, {"rounds": 3})).add(record(1))

    assert not (tmp_path / "events").exists()
