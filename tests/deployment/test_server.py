"""The coordinator's one command: a real server, and two sites run from their kits."""

import json
import os
import shutil
import signal
import subprocess
import warnings
from contextlib import closing

import httpx
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what Flower imports warns about click 9
    from flwr.proto.runtime_pb2 import AcquireTaskRequest
    from flwr.supercore.constant import TaskType
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
    from flwr.supercore.runtime import RuntimeHttpClient

from ctflow_fed.deployment.provision import provision
from ctflow_fed.deployment.site.audit import AuditLog
from ctflow_fed.model import load_package

pytestmark = [
    pytest.mark.flower,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed"),
]


@pytest.fixture(scope="module")
def deployed(start_server, sites, tmp_path_factory):
    """A server with its two sites."""
    server = start_server(tmp_path_factory.mktemp("deployed"))
    for site, store in zip(("a", "b"), sites, strict=True):
        server.start_site(site, store)
    yield server
    server.stop()


def test_the_sites_of_the_kits_give_the_weights_of_the_local_runtime(
    deployed, unbroken, tmp_path
):
    out = tmp_path / "job"
    deployed.submit(out, "--rounds 2 --steps 2 --precision int8 --optimizer kept")
    deployed.until((out / "model" / "provenance.json").exists)

    for line in (out / "rounds.jsonl").read_text().splitlines():
        assert set(json.loads(line)["slices"]) == {"a", "b"}
        assert json.loads(line)["refused"] == {}
    kept = {
        f"{k}-000{n}.safetensors" for k in ("optimizer", "residual") for n in (1, 2)
    }
    for site in ("a", "b"):
        state = deployed.root / site / "state"
        assert {path.name for path in state.glob("jobs/*/*")} == {
            "weights.safetensors",
            "weights.json",
            *kept,
        }
    package = load_package(out / "model")
    assert (package.provenance.rounds, package.provenance.sites) == (2, 2)
    assert package.digest == load_package(unbroken[0] / "model").digest
    told = subprocess.run(
        ["ctflow", "federation", "status", "--out", out, "--server", deployed.folder],
        env=deployed.environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    assert told.endswith(f"\na: up\nb: up\nmodel: {out / 'model'}\n")


def refusals(deployed, site: str) -> list:
    log = AuditLog(deployed.root / site)
    return [each for _, each in log.entries() if each.decision == "refused"]


def test_a_site_refuses_an_order_that_asks_for_more_than_it_allows(deployed, tmp_path):
    deployed.submit(tmp_path / "job", "--rounds 1 --steps 3000")
    deployed.until(lambda: refusals(deployed, "a") and refusals(deployed, "b"))

    reason = "site.toml, steps: 2000 allowed, the order asks for 3000"
    assert {each.reason for each in refusals(deployed, "a")} == {reason}
    assert refusals(deployed, "a")[0].kind == "train"


def test_a_bundle_whose_approval_was_withdrawn_is_refused_and_named(deployed, tmp_path):
    kit = deployed.root / "b"
    (digest,) = (kit / "approved").read_text().split()
    (kit / "approved").write_text("")
    deployed.submit(tmp_path / "job", "--rounds 1 --steps 2")
    deployed.until(lambda: "query" in {e.kind for e in refusals(deployed, "b")})

    assert refusals(deployed, "b")[-1].bundle == digest
    assert "not approved" in refusals(deployed, "b")[-1].reason
    assert AuditLog(kit).verify().sequence >= 3


def test_nobody_else_on_the_host_of_a_site_is_handed_an_order(deployed):
    api = RuntimeHttpClient.from_server_address(
        f"127.0.0.1:{deployed.ports['a']}",
        insecure=True,
        root_certificates=None,
        interceptors=[RuntimeVersionHttpInterceptor(component_name="SuperExec")],
    )

    with closing(api), pytest.raises(httpx.HTTPStatusError) as refused:
        api.AcquireTask(AcquireTaskRequest(supported_task_types=list(TaskType)))
    assert refused.value.response.status_code == httpx.codes.UNAUTHORIZED
    secret = deployed.root / "a" / "superexec.secret"
    assert secret.stat().st_mode & 0o777 == 0o600


def test_a_site_whose_superexec_was_killed_ends_and_fails(deployed):
    name = "ctflow_fed.deployment.site.programs"
    (superexec,) = deployed.pids(name, deployed.ports["b"])
    os.kill(superexec, signal.SIGKILL)

    assert deployed.sites["b"].wait(timeout=60) == 1
    said = (deployed.root / "b.log").read_text()
    assert "error: the site's SuperExec has ended" in said


def test_a_folder_has_one_server_at_a_time(deployed):
    second = subprocess.run(
        ["ctflow", "federation", "server", str(deployed.folder)],
        env=deployed.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert second.returncode == 1
    assert "the server of this folder runs already; stop it first" in second.stderr
    assert "Traceback" not in second.stderr


def test_the_secret_of_a_server_is_for_its_user_alone(deployed):
    secret = deployed.folder / "server" / "superexec.secret"

    assert secret.stat().st_mode & 0o777 == 0o600
    assert len(secret.read_bytes()) == 64


def test_when_a_part_that_remembers_dies_all_end_and_the_command_fails(
    start_server, tmp_path
):
    server = start_server(tmp_path, revoke=("a", "b"))
    (superexec,) = server.pids("flower-superexec", server.inside)
    os.kill(superexec, signal.SIGKILL)
    code = server.process.wait(timeout=30)

    assert code == 1
    assert "the SuperExec ended by itself and all else was stopped" in server.said()
    assert "Traceback" not in server.said()
    assert server.is_all_gone()


def test_a_server_that_was_killed_takes_its_parts_along_and_starts_again(
    start_server, tmp_path
):
    server = start_server(tmp_path, revoke=("a", "b"))
    server.process.kill()
    server.process.wait(timeout=30)
    server.until(server.is_all_gone)
    server.start()

    assert server.stop() == 0
    assert server.is_all_gone()


def test_a_proxy_that_was_killed_is_started_again_and_keys_are_taken_up_by_a_server(
    start_server, tmp_path
):
    server = start_server(tmp_path, revoke=("b",))
    nginx = server.folder / "server" / "nginx.pid"
    first = nginx.read_text()
    os.kill(int(first), signal.SIGKILL)
    server.until(lambda: nginx.read_text() not in (first, ""))
    known = server.folder / "server" / "flower" / "sites.json"
    assert set(json.loads(known.read_text())) == {"a"}
    provision(server.consortium, server.folder, reissue=("b",), revoke=("a",))
    server.until(lambda: set(json.loads(known.read_text())) == {"b"})

    allowed = server.folder / "server" / "nginx" / "sites.map"
    server.until(lambda: " b;" in allowed.read_text())
    assert server.stop() == 0
    assert server.said().endswith("the server was stopped\n")
    assert server.is_all_gone()
