"""A real SuperLink and two SuperNodes on loopback, as consortia run them."""

import json
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from ctflow_fed.model import load_package

pytestmark = [pytest.mark.flower, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
SECONDS = 240.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running(command, environment, log: Path):
    """Run a daemon in a session of its own; end all of it afterwards."""
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, text=True
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until(done, what):
    end = time.monotonic() + SECONDS
    while not done():
        assert time.monotonic() < end, f"waited too long: {what()}"
        time.sleep(0.3)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_superlink_and_two_supernodes_give_the_weights_of_the_local_runtime(
    sites, unbroken, environment, tmp_path
):
    port, out = free_port(), tmp_path / "job"
    home = tmp_path / "flower"
    home.mkdir()
    (home / "config.toml").write_text(
        '[superlink]\ndefault = "fed"\n'
        f'[superlink.fed]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    environment = {
        **environment,
        "FLWR_HOME": str(home),
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
    }
    config = {"out": str(out), "sites": "a,b", "rounds": 2, "steps": 2}
    config |= {"preset": "nano", "batch-clips": 2}
    link = f"flower-superlink --insecure --host 127.0.0.1 --port {port}"
    link += " --database :flwr-in-memory: --disable-runtime-dependency-installation"

    def logs() -> str:
        texts = [each.read_text()[-2000:] for each in sorted(tmp_path.glob("*.log"))]
        return "\n".join(texts)

    with ExitStack() as stack:
        start = lambda command, name: stack.enter_context(  # noqa: E731
            running(command, environment, tmp_path / f"{name}.log")
        )
        start(link.split(), "link")
        wait_until(lambda: answers(port), logs)
        for site in sites:
            node = f"flower-supernode --insecure --superlink 127.0.0.1:{port}"
            node += f" --host 127.0.0.1 --port {free_port()} --node-config"
            named = f'site="{site.name}" store="{site}" threads=1'
            start([*node.split(), named], f"node-{site.name}")
        words = " ".join(f"{key}={json.dumps(value)}" for key, value in config.items())
        run = ["flwr", "run", str(ROOT), "fed", "-c", words]
        subprocess.run(run, env=environment, check=True, timeout=60)
        wait_until((out / "model" / "provenance.json").exists, logs)

    package = load_package(out / "model")
    assert (package.provenance.rounds, package.provenance.sites) == (2, 2)
    assert package.digest == load_package(unbroken[0] / "model").digest
