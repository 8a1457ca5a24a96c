"""The audit log: what it detects, and what a killed process leaves."""

import json

import pytest

from ctflow_fed.deployment.site.audit import AuditLog, Entry
from ctflow_fed.errors import PackageError


@pytest.fixture
def log(tmp_path):
    log = AuditLog(tmp_path)
    for number in range(4):
        log.append(Entry(event="in", kind="train", round=number))
    return log


def test_a_log_that_was_only_appended_to_is_whole(log):
    assert log.verify().sequence == 4
    assert [entry.round for _, entry in log.entries()] == [0, 1, 2, 3]


def edited(lines):
    return [*lines[:1], lines[1].replace(b'"round": 1', b'"round": 7'), *lines[2:]]


def last_edited(lines):
    return [*lines[:3], lines[3].replace(b'"round": 3', b'"round": 7')]


@pytest.mark.parametrize(
    "change",
    [
        edited,
        last_edited,
        lambda lines: [*lines[:1], *lines[2:]],
        lambda lines: [lines[0], lines[2], lines[1], lines[3]],
        lambda lines: lines[:3],
        lambda lines: [],
        lambda lines: [*lines, lines[3]],
    ],
)
def test_any_change_is_detected_and_stops_the_log(log, tmp_path, change):
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))

    with pytest.raises(PackageError):
        log.verify()


def test_a_log_that_was_shortened_takes_no_line_any_more(log, tmp_path):
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))

    with pytest.raises(PackageError):
        log.append(Entry(event="in"))


def test_what_a_kill_leaves_of_a_line_or_of_the_head_is_mended(log, tmp_path):
    head = (tmp_path / "audit.head").read_bytes()
    log.append(Entry(event="out"))
    (tmp_path / "audit.head").write_bytes(head)
    log.append(Entry(event="out"))
    with (tmp_path / "audit.jsonl").open("ab") as file:
        file.write(b'{"sequence": 7, "ti')
    log.append(Entry(event="out"))

    assert log.verify().sequence == 7


def test_a_line_holds_the_digest_of_the_one_before(log, tmp_path):
    lines = (tmp_path / "audit.jsonl").read_text().splitlines()

    assert json.loads(lines[0])["previous"] == "0" * 64
    assert len({json.loads(line)["previous"] for line in lines}) == 4
