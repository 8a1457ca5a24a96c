"""``ctflow federation run --local``: Flower's simulation runtime, as a user runs it."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from ctflow_fed.deployment.local import name_sites
from ctflow_fed.errors import SettingsError
from ctflow_fed.model import load_package


def simulated(test):
    """Mark a test that starts Flower's simulation on Ray."""
    return pytest.mark.flower(pytest.mark.ray(pytest.mark.slow(test)))


def records_of(out: Path):
    return [
        json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()
    ]


def wait_for_a_round(process, out: Path):
    end = time.monotonic() + 120
    while not (out / "rounds.jsonl").exists():
        assert process.poll() is None, out.with_suffix(".stderr").read_text()
        assert time.monotonic() < end, "no round was played"
        time.sleep(0.1)


def test_sites_are_named_by_their_folders_in_any_order(tmp_path):
    first, second = tmp_path / "x" / "north", tmp_path / "y" / "east"

    assert name_sites([first, second]) == {"east": second, "north": first}
    assert list(name_sites([first, second])) == list(name_sites([second, first]))


@pytest.mark.parametrize("names", [("a", "a"), ("a", "two words"), ("a", "ä")])
def test_sites_without_names_of_their_own_are_refused(tmp_path, names):
    folders = [tmp_path / str(i) / name for i, name in enumerate(names)]

    with pytest.raises(SettingsError):
        name_sites(folders)


@simulated
def test_a_local_federation_ends_with_a_model(unbroken):
    out, shown = unbroken

    records = records_of(out)
    package = load_package(out / "model")
    assert [record["round"] for record in records] == [1, 2]
    assert package.digest == records[-1]["digest"]
    assert (package.provenance.rounds, package.provenance.sites) == (2, 2)
    assert "round 1 of 2" in shown
    assert "round 2 of 2" in shown
    assert str(out / "model") in shown
    assert len(shown.splitlines()) <= 6  # neither Flower nor Ray is heard
    kept = {
        f"{part}-000{number}.safetensors"
        for part in ("optimizer", "residual")
        for number in (1, 2)
    } | {"weights.safetensors", "weights.json"}
    for site in ("a", "b"):
        assert {path.name for path in out.glob(f"sites/{site}/jobs/*/*")} == kept


@simulated
def test_a_finished_job_says_so_and_does_nothing(unbroken, federation, sites):
    out, _ = unbroken
    before = (out / "rounds.jsonl").read_bytes()
    began = time.monotonic()

    code, _, stderr = federation.run(sites, out)
    assert code == 0
    assert "done already" in stderr
    assert (out / "rounds.jsonl").read_bytes() == before
    assert time.monotonic() - began < 30


@simulated
def test_other_settings_in_the_same_folder_are_refused(unbroken, federation, sites):
    out, _ = unbroken

    code, _, stderr = federation.run(sites, out, seed="1")
    assert code == 1
    assert stderr.splitlines()[-1].startswith("error: ")
    assert "other seed" in stderr


@simulated
def test_a_killed_federation_goes_on_to_the_same_weights(
    unbroken, federation, sites, tmp_path
):
    out = tmp_path / "job"
    expected = load_package(unbroken[0] / "model").digest
    process = federation.start(list(reversed(sites)), out)
    wait_for_a_round(process, out)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    code, _, stderr = federation.run(sites, out)

    assert process.returncode == -signal.SIGKILL
    assert code == 0, stderr
    assert [record["round"] for record in records_of(out)] == [1, 2]
    assert load_package(out / "model").digest == expected


@simulated
def test_an_interrupt_ends_the_command_at_once(federation, sites, tmp_path):
    process = federation.start(sites, tmp_path / "job", rounds="50")
    wait_for_a_round(process, tmp_path / "job")
    process.send_signal(signal.SIGINT)
    process.wait(timeout=30)

    assert process.returncode == 130
    assert "the same command goes on" in (tmp_path / "job.stderr").read_text()


@simulated
def test_a_worker_that_dies_ends_the_command_with_a_sentence(
    federation, sites, tmp_path
):
    process = federation.start(sites, tmp_path / "job", rounds="50")
    wait_for_a_round(process, tmp_path / "job")
    os.kill(worker_of(process.pid), signal.SIGKILL)
    process.wait(timeout=120)

    assert process.returncode == 1
    stderr = (tmp_path / "job.stderr").read_text()
    assert "error: a worker of the local federation ended" in stderr


@simulated
def test_a_site_that_cannot_be_used_ends_the_command_before_it_starts(
    federation, sites, tmp_path
):
    broken = tmp_path / "broken"
    shutil.copytree(sites[0], broken)
    (broken / "store.json").write_text("{}")

    code, _, stderr = federation.run([broken, sites[1]], tmp_path / "job")
    assert code == 1
    assert "take the studies in again" in stderr


@simulated
def test_a_site_that_fails_in_every_round_ends_the_command_with_a_sentence(
    federation, sites, tmp_path
):
    broken = tmp_path / "broken"
    shutil.copytree(sites[0], broken)
    for study in (broken / "studies").iterdir():
        study.write_bytes(b"not these")

    code, _, stderr = federation.run([broken], tmp_path / "job")
    assert code == 1
    assert (
        "error: the first evaluation got nothing usable from any site (broken: "
        in stderr
    )


def worker_of(ancestor: int) -> int:
    """Return a simulated client among the descendants of a process."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = status.read_text()
        except OSError:
            continue
        name, rest = text[text.index("(") + 1 :].rsplit(")", 1)
        parents[int(status.parent.name)] = (int(rest.split()[1]), name)

    def descends(process: int) -> bool:
        while process in parents and process != ancestor:
            process = parents[process][0]
        return process == ancestor

    clients = [
        process
        for process, (_, name) in parents.items()
        if name.startswith("ray::ClientApp") and descends(process)
    ]
    return clients[0]
