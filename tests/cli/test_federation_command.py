"""``ctflow federation``: what it offers, and how a site is let in again."""

from pathlib import Path

from click.testing import CliRunner

from ctflow_fed.cli import cli
from ctflow_fed.cli.federation import run
from ctflow_fed.federation import (
    PRECISIONS,
    STRATEGIES,
    FederationSettings,
    Ledger,
    RoundRecord,
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
        seconds=0.1,
        sent=6,
        received=4,
        shards=0,
        digest="0" * 64,
        state="",
        epsilon={},
        spent=[],
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


def test_the_status_of_a_job_tells_each_round_and_who_was_left_out(tmp_path: Path):
    words = ["federation", "status", "--out", str(tmp_path)]
    assert CliRunner().invoke(cli, words).exit_code == 1

    ledger = Ledger.open(tmp_path, {})
    for number in (1, 2):
        ledger.commit(record(number), lambda folder: None)

    lines = CliRunner().invoke(cli, words).output.splitlines()
    assert [line.split() for line in lines[1::2]] == [
        ["1", "0.8000", "1", "0.0", "0.1"],
        ["2", "0.8000", "1", "0.0", "0.1"],
        ["model:", "not", "yet"],
    ]
    assert lines[2] == lines[4] == "  left out: b: wrong"


def test_a_folder_that_is_no_job_releases_nobody(tmp_path: Path):
    result = release("b", tmp_path)

    assert result.exit_code == 1
    assert "expected the folder of a job" in str(result.exception)
    assert list(tmp_path.iterdir()) == []
