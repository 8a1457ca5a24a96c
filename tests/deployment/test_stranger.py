"""What a stranger can do who reaches the port: a real SuperLink behind a real nginx."""

import http.client
import io
import shutil
import socket
import ssl
import subprocess
import tarfile
import time
import warnings
from base64 import b64encode
from contextlib import ExitStack
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ctflow_fed.deployment.certificates import new_key
from ctflow_fed.deployment.consortium import Consortium
from ctflow_fed.deployment.coordinator import nginx_command
from ctflow_fed.deployment.provision import provision
from ctflow_fed.deployment.proxy import REFUSALS, admit, nginx_config

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what Flower imports warns about click 9
    from flwr.proto.fleet_pb2 import ActivateNodeRequest

pytestmark = [
    pytest.mark.flower,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed"),
]
PROTOBUF = "application/protobuf"
LINK = (
    "flower-superlink --host 127.0.0.1 --database :flwr-in-memory: --isolation process "
    "--superexec-auth-secret-file superexec.secret --enable-supernode-auth "
    "--disable-runtime-dependency-installation --ssl-ca-certfile ca.crt "
    "--ssl-certfile server.crt --ssl-keyfile server.key --port "
)


def ask(authority, port: int, path: str, body: bytes = b"", headers=()) -> int:
    """Return the status that a client gets who trusts the authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority)
    line = http.client.HTTPSConnection("localhost", port, context=context, timeout=20)
    try:
        kinds = {"content-type": PROTOBUF, "accept": PROTOBUF}
        line.request("POST", path, body, {**kinds, **dict(headers)})
        return line.getresponse().status
    finally:
        line.close()


@pytest.fixture(scope="module")
def deployed(environment, tmp_path_factory, free_port):
    """A consortium whose one site is registered; the ports outside and inside."""
    folder = tmp_path_factory.mktemp("lung")
    outside, inside = free_port(), free_port()
    provision(Consortium("lung", "localhost", outside, ("north",)), folder)
    server, home = folder / "server", folder / "home"
    (server / "nginx.conf").write_text(nginx_config(outside, inside))
    admit(server)
    (server / "superexec.secret").write_bytes(b"a secret of this test")
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink.fed]\naddress = "localhost:{inside}"\n'
        f'root-certificates = "{server / "ca.crt"}"\n'
    )
    environment = {**environment, "FLWR_HOME": str(home)}
    with ExitStack() as stack:
        log = stack.enter_context((folder / "log").open("w"))
        for command in (
            [*LINK.split(), str(inside)],
            nginx_command(),
        ):
            daemon = subprocess.Popen(
                command, cwd=server, env=environment, stdout=log, stderr=log
            )
            stack.callback(daemon.wait, timeout=20)
            stack.callback(daemon.terminate)
        end = time.monotonic() + 120
        for port in (inside, outside):
            with socket.socket() as probe:
                while probe.connect_ex(("127.0.0.1", port)):
                    assert time.monotonic() < end, (folder / "log").read_text()[-2000:]
                    time.sleep(0.1)
        register = ["flwr", "supernode", "register", "nodes/north.pub", "fed"]
        subprocess.run(register, cwd=server, env=environment, check=True, timeout=60)
        yield folder, outside, inside


def signed(key) -> tuple[bytes, dict[str, str]]:
    """Return a request to be let in, signed as Flower's SuperNode does it."""
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    timestamp = datetime.now(UTC).isoformat()
    signature = key.sign(timestamp.encode(), ec.ECDSA(hashes.SHA256()))
    body = ActivateNodeRequest(public_key=public, heartbeat_interval=30)
    return body.SerializeToString(), {
        "flwr-public-key": b64encode(public).decode(),
        "flwr-timestamp": timestamp,
        "flwr-signature": b64encode(signature).decode(),
    }


@pytest.mark.parametrize(
    ("call", "inside"),
    [
        ("control/list-runs", 200),
        ("control/list-nodes", 200),
        ("runtime/acquire-task", 401),
    ],
)
def test_what_flower_leaves_open_is_reached_from_loopback_alone(deployed, call, inside):
    folder, outer, inner = deployed
    authority = folder / "server" / "ca.crt"

    assert ask(authority, inner, f"/v1/{call}") == inside
    assert ask(authority, outer, f"/v1/{call}") == 404


@pytest.mark.parametrize(
    "call", ["register-node", "pull-messages", "push-messages", "get-fab"]
)
def test_no_call_of_a_site_is_answered_without_a_signature(deployed, call):
    folder, outside, _ = deployed

    assert ask(folder / "server" / "ca.crt", outside, f"/v1/fleet/{call}") == 401


def test_the_key_of_a_kit_lets_its_site_in_and_any_other_key_nobody(deployed):
    folder, outside, _ = deployed
    authority = folder / "server" / "ca.crt"
    data = (folder / "kits" / "north.tar.gz").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(data)) as kit:
        own = kit.extractfile("north/site.key").read()

    path = "/v1/fleet/activate-node"
    key = serialization.load_ssh_private_key(own, None)
    assert ask(authority, outside, path, *signed(key)) == 200
    status = ask(authority, outside, path, *signed(new_key()))
    assert 400 <= status < 500
    log, end = folder / "server" / REFUSALS, time.monotonic() + 20
    while f'{status} NONE "POST {path} HTTP/1.1"' not in log.read_text():
        assert time.monotonic() < end  # an answer is sent before it is logged
        time.sleep(0.01)
