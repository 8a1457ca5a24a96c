"""What the coordinator's commands refuse before anything is started."""

import datetime
from importlib.util import find_spec

import pytest
from click.testing import CliRunner

from ctflow_fed.cli import cli
from ctflow_fed.deployment import certificates, coordinator
from ctflow_fed.deployment.certificates import is_current
from ctflow_fed.deployment.consortium import Consortium
from ctflow_fed.deployment.coordinator import serve
from ctflow_fed.deployment.presence import sites_up
from ctflow_fed.deployment.provision import provision
from ctflow_fed.deployment.proxy import nginx_config, ports_in
from ctflow_fed.deployment.registry import read_registry
from ctflow_fed.errors import IncompleteError, MismatchError, PackageError
from ctflow_fed.federation import FederationSettings


@pytest.fixture
def folder(tmp_path):
    """A consortium that was provisioned."""
    provision(Consortium("lung", "localhost", 443, ("east", "north")), tmp_path)
    return tmp_path


@pytest.fixture
def nothing_starts(monkeypatch):
    """Let every start of a process fail the test; nginx counts as installed."""

    def start(*words, **options):
        raise AssertionError(words)

    monkeypatch.setattr(coordinator.subprocess, "Popen", start)
    monkeypatch.setattr(coordinator.shutil, "which", lambda *words, **options: "here")


def test_a_folder_without_the_servers_key_is_not_served(folder, nothing_starts):
    (folder / "server" / "server.key").unlink()

    with pytest.raises(PackageError, match="make it with: ctflow federation provision"):
        serve(folder, print)


@pytest.mark.parametrize("days", [-2, 400])
def test_a_clock_outside_the_certificates_time_is_refused(
    folder, nothing_starts, monkeypatch, days
):
    now = certificates._now() + datetime.timedelta(days=days)
    monkeypatch.setattr(certificates, "_now", lambda: now)

    with pytest.raises(MismatchError, match="set the clock with NTP"):
        serve(folder, print)


def test_a_certificate_is_current_from_its_first_day_to_its_last(folder):
    pem = (folder / "server" / "server.crt").read_bytes()

    assert is_current(pem)
    assert not is_current(pem[:100])


def test_the_ports_are_those_that_the_proxy_was_given():
    assert ports_in(nginx_config(443, 8123)) == (443, 8123)
    with pytest.raises(PackageError, match="provision again"):
        ports_in("listen 443 ssl;")


def test_a_revoked_site_is_not_in_the_registry(folder):
    nodes = folder / "server" / "nodes"
    assert sorted(read_registry(nodes).values()) == ["east", "north"]

    (nodes / "east.revoked").touch()

    assert list(read_registry(nodes).values()) == ["north"]


def run(*words: str):
    return CliRunner().invoke(cli, ["federation", "run", *words])


def test_a_job_goes_to_all_registered_sites_with_absolute_paths(folder, monkeypatch):
    submitted: list[FederationSettings] = []
    monkeypatch.setattr(
        "ctflow_fed.deployment.submit.submit",
        lambda server, settings: submitted.append(settings),
    )
    provision(
        Consortium("lung", "localhost", 443, ("east", "north", "west")),
        folder,
        revoke=("east",),
    )
    monkeypatch.chdir(folder)

    result = run("--server", ".", "--out", "job", "--rounds", "3")

    (settings,) = submitted
    assert result.exit_code == 0
    assert settings.sites == ("north", "west")
    assert settings.nodes == str(folder / "server" / "nodes")
    assert (settings.out, settings.rounds) == (str(folder / "job"), 3)


def test_a_run_is_either_local_or_of_a_server(folder):
    out = ("--out", str(folder / "job"))

    for words in (
        (),
        ("--local",),
        (str(folder),),
        ("--local", str(folder), "--server", str(folder)),
        ("--server", str(folder), str(folder)),
        ("--server", str(folder), "--json"),
    ):
        result = run(*words, *out)
        assert result.exit_code != 0
        assert "say --local with" in result.output + str(result.exception)


@pytest.mark.flower
@pytest.mark.skipif(find_spec("flwr") is None, reason="Flower is not installed")
def test_a_server_that_does_not_run_takes_no_job(folder):
    result = run("--server", str(folder), "--out", str(folder / "job"))

    assert result.exit_code == 1
    assert str(result.exception).startswith("the server of this folder took no job")
    with pytest.raises(IncompleteError, match="does not answer; start it with"):
        sites_up(folder)
