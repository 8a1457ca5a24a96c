"""The door to the outside: a real nginx before a server that answers everything."""

import http.client
import os
import shutil
import socket
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ctflow_fed.deployment.consortium import Consortium
from ctflow_fed.deployment.provision import provision
from ctflow_fed.deployment.proxy import admit, nginx_config, nginx_user

pytestmark = pytest.mark.skipif(
    shutil.which("nginx") is None, reason="nginx is not installed"
)


class Everything(BaseHTTPRequestHandler):
    """Answer 200 to whatever comes, and 500 where a site would take it for the end."""

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(500 if self.path.endswith("/pull-messages") else 200)
        content = b"inside" * (2**20 if self.path.endswith("/pull-object") else 1)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words):
        """Say nothing."""


@pytest.fixture(scope="module")
def door(tmp_path_factory, free_port, start_nginx):
    """A port of nginx, and the authority that a client has to trust."""
    folder = tmp_path_factory.mktemp("consortium")
    port, inner = free_port(), ThreadingHTTPServer(("127.0.0.1", 0), Everything)
    provision(Consortium("lung", "localhost", port, ("north",)), folder)
    server = folder / "server"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server / "server.crt", server / "server.key")
    inner.socket = context.wrap_socket(inner.socket, server_side=True)
    threading.Thread(target=inner.serve_forever, daemon=True).start()
    (server / "nginx.conf").write_text(nginx_config(port, inner.server_port))
    admit(server)
    nginx = start_nginx(server, port)
    yield port, server / "ca.crt"
    nginx.terminate()
    nginx.wait(timeout=20)
    inner.shutdown()
    inner.server_close()


def workers(server) -> list[int]:
    """Return the user of each process that the nginx of a folder has started."""
    master = (server / "nginx.pid").read_text().strip()
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    return [Path(f"/proc/{child}").stat().st_uid for child in children]


@pytest.mark.skipif(os.geteuid() != 0, reason="nginx may change its user as root only")
def test_where_root_starts_nginx_it_serves_as_a_user_who_may_do_less(door):
    server = door[1].parent
    ends = time.monotonic() + 10
    while set(workers(server)) != {nginx_user().pw_uid} and time.monotonic() < ends:
        time.sleep(0.05)  # they are born as root

    assert set(workers(server)) == {nginx_user().pw_uid}
    assert nginx_user().pw_uid != 0
    assert (server / "server.key").stat().st_mode & 0o077 == 0
    assert (server / "shards" / "down").stat().st_mode & 0o022 == 0


def ask(door, path: str, method: str = "POST", body: bytes = b"x"):
    """Return the status and the body that a client outside gets."""
    port, authority = door
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority)
    line = http.client.HTTPSConnection("localhost", port, context=context, timeout=20)
    try:
        line.request(method, path, body)
        answer = line.getresponse()
        return answer.status, answer.read()
    finally:
        line.close()


def test_a_call_of_a_site_goes_through_with_a_chunk_of_five_mebibytes(door):
    assert ask(door, "/v1/fleet/push-object", body=bytes(5 * 2**20)) == (200, b"inside")


def test_a_large_answer_comes_whole(door):
    assert ask(door, "/v1/fleet/pull-object") == (200, b"inside" * 2**20)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/docs",
        "/openapi.json",
        "/health",
        "/v1/control/list-runs",
        "/v1/control/start-run",
        "/v1/control/register-node",
        "/v1/runtime/acquire-task",
        "/v1/fleet/",
        "/v1/fleet/../control/list-runs",
        "/v1/fleet/%2e%2e/control/list-runs",
        "/v1/fleet/..%2fcontrol%2flist-runs",
        "/v1/fleet/%252e%252e/control/list-runs",
        "/v1/control/list-runs/../../fleet/pull-object",
        "/v1/control/list-runs%2f..%2f..%2ffleet/pull-object",
        "//v1/fleet/pull-object",
        "/v1/fleet/pull-object?x=/v1/control/list-runs",
        "/v1/shards/",
        "/v1/shards/down/",
        "/v1/shards/up/north/000",
        "/v1/shards/up/../down/00",
    ],
)
def test_nothing_else_is_reached_whatever_the_path_looks_like(door, path):
    status, body = ask(door, path)

    assert status == 404
    assert b"inside" not in body


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_only_posts_go_through(door, method):
    assert ask(door, "/v1/fleet/pull-object", method)[0] == 405


def test_an_error_inside_becomes_a_wait_and_says_nothing(door):
    status, body = ask(door, "/v1/fleet/pull-messages")

    assert status == 503
    assert b"inside" not in body


def test_a_body_without_bounds_is_refused(door):
    port, authority = door
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority)
    with (
        socket.create_connection(("localhost", port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as stream,
    ):
        head = "POST /v1/fleet/push-object HTTP/1.1\r\nhost: x\r\n"
        stream.sendall(f"{head}content-length: 99999999\r\n\r\n".encode())
        assert stream.recv(4096).startswith(b"HTTP/1.1 413")


def test_plain_text_reaches_nothing(door):
    line = http.client.HTTPConnection("localhost", door[0], timeout=20)
    line.request("POST", "/v1/fleet/pull-object", b"x")

    assert line.getresponse().status == 400
    line.close()
