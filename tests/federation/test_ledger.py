import json
from pathlib import Path

import pytest

from ctflow_fed.errors import MismatchError, PackageError
from ctflow_fed.federation import Ledger, RoundRecord

IDENTITY = {"steps": 2, "sites": ["a", "b"]}


def record(number):
    return RoundRecord(
        round=number,
        slices={"a": 3},
        refused={},
        train_loss_first=1.0,
        train_loss_last=0.9,
        loss_before=1.0,
        loss_after=0.8,
        seconds=0.1,
        bytes=10,
        digest="0" * 64,
    )


def save(number):
    return lambda folder: (folder / "weights").write_text(str(number))


def played(folder, rounds):
    ledger = Ledger.open(folder, IDENTITY)
    for number in range(ledger.rounds + 1, rounds + 1):
        ledger.commit(record(number), save(number))
    return ledger


def test_a_job_goes_on_after_its_last_round(tmp_path: Path):
    played(tmp_path, 2)

    ledger = Ledger.open(tmp_path, IDENTITY)
    assert ledger.records == (record(1), record(2))
    assert (ledger.checkpoint(2) / "weights").read_text() == "2"


def test_only_the_last_round_is_kept(tmp_path: Path):
    played(tmp_path, 4)
    (tmp_path / "rounds" / "0001").mkdir()  # a kill came before it was dropped
    played(tmp_path, 5)

    assert sorted(each.name for each in (tmp_path / "rounds").iterdir()) == [
        "0005",
    ]


def test_a_round_that_was_killed_before_its_line_is_played_again(tmp_path: Path):
    ledger = played(tmp_path, 1)
    half = ledger.checkpoint(2)
    half.mkdir()
    (half / "weights").write_text("half")
    (tmp_path / "rounds" / ".partial-0002").mkdir()

    again = played(tmp_path, 2)
    assert again.rounds == 2
    assert (half / "weights").read_text() == "2"


def test_the_result_is_the_last_round(tmp_path: Path):
    ledger = played(tmp_path, 3)
    (ledger.model).mkdir()
    ledger.publish()

    assert (ledger.model / "weights").read_text() == "3"


def test_a_job_with_other_settings_is_refused_by_their_names(tmp_path: Path):
    played(tmp_path, 1)

    with pytest.raises(MismatchError, match="other steps; repeat"):
        Ledger.open(tmp_path, {**IDENTITY, "steps": 3})


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_a_job_whose_settings_are_broken_is_refused(tmp_path: Path, text):
    (tmp_path / "run.json").write_text(text)

    with pytest.raises((PackageError, MismatchError)):
        Ledger.open(tmp_path, IDENTITY)


@pytest.mark.parametrize(
    "change",
    [
        lambda line: "{",
        lambda line: "null",
        lambda line: json.dumps({**json.loads(line), "extra": 1}),
        lambda line: json.dumps({**json.loads(line), "round": 2}),
        lambda line: json.dumps({**json.loads(line), "loss_after": "low"}),
    ],
)
def test_a_record_that_was_changed_is_refused(tmp_path: Path, change):
    played(tmp_path, 1)
    path = tmp_path / "rounds.jsonl"
    path.write_text(change(path.read_text().strip()) + "\n")

    with pytest.raises(PackageError):
        Ledger.open(tmp_path, IDENTITY)
