import json
from pathlib import Path

import pytest

from ctflow_fed.errors import MismatchError, PackageError, SettingsError
from ctflow_fed.federation import Ledger, RoundRecord, release
from ctflow_fed.federation.ledger import STATE

IDENTITY = {"steps": 2, "sites": ["a", "b"]}


def record(number, loss_after=0.8, strikes=()):
    return RoundRecord(
        round=number,
        slices={"a": 3},
        moved={"a": 0.1},
        refused={},
        strikes=list(strikes),
        train_loss_first=1.0,
        train_loss_last=0.9,
        loss_before=1.0,
        loss_after=loss_after,
        losses={"a": loss_after},
        seconds=0.1,
        sent=6,
        received=4,
        shards=0,
        digest="0" * 64,
        state="",
        epsilon={},
        spent=[],
        attempts=1,
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


def test_only_the_last_round_and_the_best_are_kept(tmp_path: Path):
    ledger = played(tmp_path, 1)
    for number, loss in enumerate((0.5, 0.7, 0.5), start=2):
        ledger.commit(record(number, loss), save(number))
    (tmp_path / "rounds" / "0003").mkdir()  # a kill came before it was dropped
    ledger.commit(record(5, 0.6), save(5))

    assert ledger.best == 2
    assert sorted(each.name for each in (tmp_path / "rounds").iterdir()) == [
        "0002",
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
    ledger.publish(3)

    assert (ledger.model / "weights").read_text() == "3"


def test_the_state_of_the_server_is_no_part_of_the_result(tmp_path: Path):
    ledger = Ledger.open(tmp_path, IDENTITY)
    ledger.commit(record(1), lambda folder: (folder / STATE).touch())
    ledger.publish(1)

    assert (ledger.checkpoint(1) / STATE).exists()
    assert not (ledger.model / STATE).exists()


def test_three_wrong_answers_quarantine_a_site_until_it_is_released(tmp_path: Path):
    ledger = Ledger.open(tmp_path, IDENTITY)
    counts = []
    for number in range(1, 4):
        ledger.commit(record(number, strikes=["b"]), save(number))
        counts.append(len(ledger.quarantined()))

    assert counts == [0, 0, 1]
    assert "ctflow federation release b" in ledger.quarantined()["b"]
    assert set(Ledger.open(tmp_path, IDENTITY).quarantined()) == {"b"}
    release(tmp_path, "b")
    assert ledger.quarantined() == {}
    assert Ledger.open(tmp_path, IDENTITY).quarantined() == {}
    for number in range(4, 7):
        ledger.commit(record(number, strikes=["b"]), save(number))
    assert set(ledger.quarantined()) == {"b"}


def test_a_site_that_is_not_quarantined_is_not_released(tmp_path: Path):
    ledger = Ledger.open(tmp_path, IDENTITY)
    for number in range(1, 4):
        ledger.commit(record(number, strikes=["b"]), save(number))

    with pytest.raises(SettingsError, match=r"quarantined \(b\), got another"):
        release(tmp_path, "a")
    assert not (tmp_path / "released.json").exists()


def test_a_folder_without_a_job_releases_no_site(tmp_path: Path):
    with pytest.raises(PackageError, match="the folder of a job"):
        release(tmp_path, "a")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"b": "1"}', '{"b": true}'])
def test_releases_that_were_changed_are_refused(tmp_path: Path, text):
    ledger = played(tmp_path, 1)
    (tmp_path / "released.json").write_text(text)

    with pytest.raises(PackageError, match=r"released\.json"):
        ledger.quarantined()


def test_a_job_with_other_settings_is_refused_by_their_names(tmp_path: Path):
    played(tmp_path, 1)

    with pytest.raises(MismatchError, match="other steps; repeat"):
        Ledger.open(tmp_path, {**IDENTITY, "steps": 3})


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"steps": 2}'])
def test_a_job_whose_settings_are_broken_is_refused(tmp_path: Path, text):
    (tmp_path / "run.json").write_text(text)

    with pytest.raises(PackageError, match="not what was written; restore it"):
        Ledger.open(tmp_path, IDENTITY)


@pytest.mark.parametrize(
    "change",
    [
        lambda line: "{",
        lambda line: "null",
        lambda line: json.dumps({**json.loads(line), "extra": 1}),
        lambda line: json.dumps({**json.loads(line), "round": 2}),
        lambda line: json.dumps({**json.loads(line), "loss_after": "low"}),
        lambda line: json.dumps({**json.loads(line), "strikes": "b"}),
    ],
)
def test_a_record_that_was_changed_is_refused(tmp_path: Path, change):
    played(tmp_path, 1)
    path = tmp_path / "rounds.jsonl"
    path.write_text(change(path.read_text().strip()) + "\n")

    with pytest.raises(PackageError):
        Ledger.open(tmp_path, IDENTITY)
