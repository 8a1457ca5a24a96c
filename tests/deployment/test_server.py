"""The coordinator's one command: a real server, and two sites run from their kits."""

import json
import math
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from ctflow_fed.ct.store import LatentStore
from ctflow_fed.deployment.consortium import Consortium
from ctflow_fed.deployment.provision import provision
from ctflow_fed.deployment.proxy import nginx_config
from ctflow_fed.deployment.site.audit import AuditLog
from ctflow_fed.federation import SHARD_BYTES
from ctflow_fed.model import FMvTConfig, fresh_network, load_package, save_package
from ctflow_fed.training import describe

pytestmark = [
    pytest.mark.flower,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed"),
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def until(done, log: Path) -> None:
    end = time.monotonic() + 240
    while not done():
        assert time.monotonic() < end, log.read_text()[-4000:]
        time.sleep(0.1)


class Server:
    """`ctflow federation server` for a new consortium, on ports of its own."""

    def __init__(self, root: Path, environment: dict[str, str], revoke=()) -> None:
        self.folder, self.log = root / "lung", root / "log"
        self.outside, self.inside = free_port(), free_port()
        sites = ("a", "b")
        consortium = Consortium("lung", "localhost", self.outside, sites)
        provision(consortium, self.folder, revoke=revoke)
        config = nginx_config(self.outside, self.inside)
        (self.folder / "server" / "nginx.conf").write_text(config)
        self.environment = {
            **environment,
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
        }

    def __enter__(self) -> "Server":
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                ["ctflow", "federation", "server", str(self.folder)],
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        until(lambda: "the server is up" in self.said() or not self.runs(), self.log)
        assert self.runs(), self.said()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)

    def said(self) -> str:
        return self.log.read_text()

    def runs(self) -> bool:
        return self.process.poll() is None

    def is_all_gone(self) -> bool:
        return not (is_open(self.outside) or is_open(self.inside))


def start_site(server: Server, site: str, store: Path, root: Path):
    """Start a site with the start.sh of its kit, on a port that is free here."""
    with tarfile.open(server.folder / "kits" / f"{site}.tar.gz") as kit:
        kit.extractall(root, filter="data")
    allowed = root / site / "site.toml"
    few = allowed.read_text().replace("minimum_studies = 5", "minimum_studies = 1")
    allowed.write_text(few)
    subprocess.run(
        ["ctflow", "federation", "site", "approve", "--kit", str(root / site)],
        env=server.environment,
        check=True,
        timeout=60,
    )
    with (root / f"{site}.log").open("w") as log:
        return subprocess.Popen(
            [str(root / site / "start.sh"), str(store), "--port", str(free_port())],
            env=server.environment,
            stdout=log,
            stderr=log,
        )


@pytest.fixture(scope="module")
def deployed(environment, sites, tmp_path_factory):
    """A server with its two sites."""
    root = tmp_path_factory.mktemp("deployed")
    with ExitStack() as stack:
        server = stack.enter_context(Server(root, environment))
        for site, store in zip(("a", "b"), sites, strict=True):
            node = start_site(server, site, store, root)
            stack.callback(node.wait, timeout=30)
            stack.callback(node.terminate)
        yield server


def test_the_sites_of_the_kits_give_the_weights_of_the_local_runtime(
    deployed, unbroken, tmp_path
):
    out = tmp_path / "job"
    command = ["ctflow", "federation", "run", "--server", str(deployed.folder)]
    options = "--rounds 2 --steps 2 --preset nano --batch-clips 2"
    travel = "--precision int8 --optimizer kept --out"
    subprocess.run(
        [*command, *options.split(), *travel.split(), str(out)],
        env=deployed.environment,
        check=True,
        timeout=60,
    )
    until((out / "model" / "provenance.json").exists, deployed.log)

    for line in (out / "rounds.jsonl").read_text().splitlines():
        assert set(json.loads(line)["slices"]) == {"a", "b"}
        assert json.loads(line)["refused"] == {}
    kept = {
        f"{k}-000{n}.safetensors" for k in ("optimizer", "residual") for n in (1, 2)
    }
    for site in ("a", "b"):
        state = deployed.folder.parent / site / "state"
        assert {path.name for path in state.glob("jobs/*/*")} == {
            "weights.safetensors",
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
    assert told.endswith(f"model: {out / 'model'}\na: up\nb: up\n")


def test_weights_too_large_for_a_message_go_as_shards_through_the_gate(
    deployed, sites, tmp_path
):
    network = fresh_network(FMvTConfig(layers=1, features=1024, heads=16), seed=0)
    made = describe(LatentStore.open(sites[0]), steps=0, seed=0)
    save_package(tmp_path / "wide", network, made)
    out = tmp_path / "job"
    command = ["ctflow", "federation", "run", "--server", str(deployed.folder)]
    options = "--rounds 1 --steps 1 --batch-clips 1 --init"
    subprocess.run(
        [*command, *options.split(), str(tmp_path / "wide"), "--out", str(out)],
        env=deployed.environment,
        check=True,
        timeout=60,
    )
    until((out / "model" / "provenance.json").exists, deployed.log)

    (record,) = map(json.loads, (out / "rounds.jsonl").read_text().splitlines())
    assert (set(record["slices"]), record["refused"]) == ({"a", "b"}, {})
    size = sum(4 * value.numel() for value in network.state_dict().values())
    assert (record["sent"], record["received"]) == (4 * size, 2 * size)
    assert record["shards"] == 6 * math.ceil(size / SHARD_BYTES)
    for site in ("a", "b"):
        kit = deployed.folder.parent / site
        sent = [e for _, e in AuditLog(kit).entries() if e.event == "out"]
        assert max(each.bytes for each in sent) > size
        assert not any((kit / "state" / box).exists() for box in ("inbox", "outbox"))


def submit(deployed, out: Path, steps: int) -> None:
    command = ["ctflow", "federation", "run", "--server", str(deployed.folder)]
    options = f"--rounds 1 --steps {steps} --preset nano --batch-clips 2 --out"
    subprocess.run(
        [*command, *options.split(), str(out)],
        env=deployed.environment,
        check=True,
        timeout=60,
    )


def refusals(deployed, site: str) -> list:
    log = AuditLog(deployed.folder.parent / site)
    return [each for _, each in log.entries() if each.decision == "refused"]


def test_a_site_refuses_an_order_that_asks_for_more_than_it_allows(deployed, tmp_path):
    submit(deployed, tmp_path / "job", steps=3000)
    until(lambda: refusals(deployed, "a") and refusals(deployed, "b"), deployed.log)

    reason = "site.toml, steps: 2000 allowed, the order asks for 3000"
    assert {each.reason for each in refusals(deployed, "a")} == {reason}
    assert refusals(deployed, "a")[0].kind == "train"


def test_a_bundle_whose_approval_was_withdrawn_is_refused_and_named(deployed, tmp_path):
    kit = deployed.folder.parent / "b"
    (digest,) = (kit / "approved").read_text().split()
    (kit / "approved").write_text("")
    submit(deployed, tmp_path / "job", steps=2)
    until(lambda: "query" in {e.kind for e in refusals(deployed, "b")}, deployed.log)

    assert refusals(deployed, "b")[-1].bundle == digest
    assert "not approved" in refusals(deployed, "b")[-1].reason
    assert AuditLog(kit).verify().sequence >= 3


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


def test_when_one_part_dies_all_end_and_the_command_fails(environment, tmp_path):
    with Server(tmp_path, environment, revoke=("a", "b")) as server:
        nginx = int((server.folder / "server" / "nginx.pid").read_text())
        os.kill(nginx, signal.SIGKILL)
        code = server.process.wait(timeout=30)

    assert code == 1
    assert "nginx ended by itself and all else was stopped" in server.said()
    assert "Traceback" not in server.said()
    assert server.is_all_gone()


def test_a_signal_stops_all_of_it_in_order(environment, tmp_path):
    with Server(tmp_path, environment, revoke=("a", "b")) as server:
        server.process.terminate()
        code = server.process.wait(timeout=30)

    assert code == 0
    assert server.said().endswith("the server was stopped\n")
    assert server.is_all_gone()
