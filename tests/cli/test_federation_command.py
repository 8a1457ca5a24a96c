"""``ctflow federation``: what it offers, and how a site is let in again."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from ctflow_fed.cli import cli
from ctflow_fed.cli.federation import run
from ctflow_fed.federation import (
    PRECISIONS,
    STRATEGIES,
    FederationSettings,
    Ledger,
    Reporter,
    RoundRecord,
    playing,
)


def record(number: int) -> RoundRecord:
    return RoundRecord(
        round=number,
        slices={"a": 3},
        moved={"a": 0.1},
        refused={"b": "wrong"},
        strikes=["b"],
        train_loss_first=1.0,
        train_loss_last=0.9,
        loss_before=1.0,
        loss_after=0.8,
        losses={"a": 0.8},
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


def release(site: str, out: Path):
    return CliRunner().invoke(cli, ["federation", "release", site, "--out", str(out)])


def test_the_command_offers_every_strategy_with_the_defaults_of_the_settings():
    options = {option.name: option for option in run.params}
    defaults = FederationSettings(out="job", sites=("a",))

    assert list(options["strategy"].type.choices) == list(STRATEGIES)
    server = {"server_learning_rate", "server_ema", "min_sites", "max_share"}
    travel = {"adapter_rank", "precision", "optimizer"}
    for name in server | travel | {"strategy", "patience"}:
        assert options[name].default == getattr(defaults, name)
    assert tuple(options["precision"].type.choices) == PRECISIONS


def test_a_quarantined_site_is_released_once(tmp_path: Path):
    ledger = Ledger.open(tmp_path, {})
    for number in (1, 2, 3):
        ledger.commit(record(number), lambda folder: None)

    assert set(ledger.quarantined()) == {"b"}
    first, again = release("b", tmp_path), release("b", tmp_path)
    assert first.exit_code == 0
    assert "b is asked again from the next round on" in first.output
    assert ledger.quarantined() == {}
    assert "quarantined (none), got another" in str(again.exception)


STATUS = ["federation", "status", "--out"]


def test_the_status_of_a_job_tells_each_round_and_who_was_left_out(tmp_path: Path):
    assert CliRunner().invoke(cli, [*STATUS, str(tmp_path)]).exit_code == 1

    ledger = Ledger.open(tmp_path, {"rounds": 3})
    for number in (1, 2):
        ledger.commit(record(number), lambda folder: None)

    lines = CliRunner().invoke(cli, [*STATUS, str(tmp_path)]).output.splitlines()
    assert lines[0].startswith("stopped: 2 of 3 rounds: the process that played it is")
    assert [line.split() for line in lines[2::2]] == [
        ["1", "0.8000", "1", "0.0", "0.1", "0.8000"],
        ["2", "0.8000", "1", "0.0", "0.1", "0.8000"],
        ["model:", "not", "yet"],
    ]
    assert lines[3] == lines[5] == "  left out: b: wrong"


def test_a_job_that_runs_tells_what_it_does_and_what_is_left(tmp_path: Path):
    ledger = Ledger.open(tmp_path, {"rounds": 101})
    ledger.commit(replace(record(1), seconds=60.0), lambda folder: None)
    with playing(tmp_path):
        reporter = Reporter(tmp_path)
        reporter.ask("train", 2, ["a", "b", "c"])
        reporter.hear("b")
        told = CliRunner().invoke(cli, [*STATUS, str(tmp_path)]).output
        values = CliRunner().invoke(cli, [*STATUS, str(tmp_path), "--json"]).output

    assert told.startswith("running: 1 of 101 rounds, training in round 2 for ")
    assert "(1 of 3 answered, not yet: a, c), 100 min left at most\n" in told
    assert json.loads(values)["left"] == pytest.approx(6000, abs=60)
    assert json.loads(values)["records"][0]["losses"] == {"a": 0.8}


def test_a_job_that_ended_early_says_why_whoever_asks(tmp_path: Path):
    Ledger.open(tmp_path, {"rounds": 3})
    Reporter(tmp_path).end("round 1 got nothing usable from any site")

    watched = CliRunner().invoke(cli, [*STATUS, str(tmp_path), "--watch"]).output
    why = "stopped: 0 of 3 rounds: round 1 got nothing usable from any site\n"
    assert why in watched


@pytest.mark.parametrize("text", ["", "{", "[]", '{"phase": 1}', '{"asked": 5}'])
def test_progress_that_cannot_be_read_hides_no_round(tmp_path: Path, text):
    Ledger.open(tmp_path, {"rounds": 3})
    (tmp_path / "progress.json").write_text(text)

    told = CliRunner().invoke(cli, [*STATUS, str(tmp_path)])
    assert told.exit_code == 0
    assert told.output.startswith("stopped: 0 of 3 rounds")


def test_a_folder_that_is_no_job_releases_nobody(tmp_path: Path):
    result = release("b", tmp_path)

    assert result.exit_code == 1
    assert "expected the folder of a job" in str(result.exception)
    assert list(tmp_path.iterdir()) == []
