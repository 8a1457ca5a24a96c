"""What strangers send to a real nginx, by kind: all is refused, and each is logged."""

import datetime
import http.client
import io
import shutil
import ssl
import tarfile
import time
from collections import Counter

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from ctflow_fed.deployment.certificates import (
    identity_text,
    load_key,
    new_key,
    read_identity,
)
from ctflow_fed.deployment.consortium import Consortium
from ctflow_fed.deployment.provision import provision
from ctflow_fed.deployment.proxy import LARGEST_LOG, REFUSALS, admit, turn_over

pytestmark = pytest.mark.skipif(
    shutil.which("nginx") is None, reason="nginx is not installed"
)
DOWN, UP = f"/v1/shards/down/{'a' * 64}", "/v1/shards/up/north/00"
INSIDE = (
    *("/v1/control/list-runs", "/v1/control/start-run", "/v1/control/register-node"),
    *("/v1/control/stream-logs", "/v1/runtime/acquire-task", "/v1/runtime/pull-object"),
)
HIDDEN = (
    *("/v1/fleet/../control/list-runs", "/v1/fleet/%2e%2e/control/list-runs"),
    *("/v1/fleet/..%2fcontrol%2flist-runs", "//v1/fleet/pull-object", "/docs", "/"),
)
SHARDS = (("GET", DOWN), ("PUT", UP))
STRANGERS = {
    "control and runtime calls": [("", "POST", path) for path in INSIDE],
    "paths that hide another": [("", "POST", path) for path in HIDDEN],
    "plain text": [("plain", "POST", path) for path in ("/", INSIDE[0])],
    "no certificate": [("", *each) for each in SHARDS],
    "a foreign certificate": [("foreign", *each) for each in SHARDS],
    "an expired certificate": [("expired", *each) for each in SHARDS],
    "another site's certificate": [("east", "PUT", UP)],
    "other methods": [("", m, "/v1/fleet/pull-object") for m in ("GET", "DELETE")],
}


@pytest.fixture(scope="module")
def door(tmp_path_factory, free_port, start_nginx):
    """The port of an nginx, its folder, and who may show which certificate."""
    root, port = tmp_path_factory.mktemp("refusals"), free_port()
    for name in ("lung", "other"):
        provision(Consortium("lung", "localhost", port, ("north", "east")), root / name)
    shown = {
        "east": identity(root / "lung", "east"),
        "foreign": identity(root / "other", "north"),
        "expired": expired(root / "lung", identity(root / "lung", "north")),
    }
    for name, text in shown.items():
        (root / f"{name}.pem").write_bytes(text)
    server = root / "lung" / "server"
    admit(server)
    nginx = start_nginx(server, port)
    yield port, server, root
    nginx.terminate()
    nginx.wait(timeout=20)


def identity(folder, site):
    """Return the key and the certificate in the kit of a site."""
    data = (folder / "kits" / f"{site}.tar.gz").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(data)) as kit:
        return kit.extractfile(f"{site}/site.pem").read()


def expired(folder, own):
    """Return an identity whose certificate of the authority ended yesterday."""
    authority, key = load_key(folder / "authority" / "ca.key"), new_key()
    path = folder / "own.pem"
    path.write_bytes(own)
    old = x509.load_pem_x509_certificate(read_identity(path)[1])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(old.issuer, old.subject, key.public_key(), 7)
    builder = builder.not_valid_before(now - datetime.timedelta(days=9))
    builder = builder.not_valid_after(now - datetime.timedelta(days=1))
    for each in old.extensions:
        builder = builder.add_extension(each.value, each.critical)
    signed = builder.sign(authority, hashes.SHA384())
    return identity_text(key, signed.public_bytes(serialization.Encoding.PEM))


def ask(door, who, method, path):
    """Return the status that a stranger gets."""
    port, server, root = door
    if who == "plain":
        line = http.client.HTTPConnection("localhost", port, timeout=20)
    else:
        context = ssl.create_default_context(cafile=str(server / "ca.crt"))
        if who:
            context.load_cert_chain(root / f"{who}.pem")
        line = http.client.HTTPSConnection("localhost", port, context=context)
    try:
        line.request(method, path, b"x")
        return line.getresponse().status
    finally:
        line.close()


def lines_after(log, before, count):
    """Return the lines of a log after some, once there are so many of them."""
    end = time.monotonic() + 20  # an answer is sent before it is logged
    while True:
        lines = log.read_text().splitlines()[before:]
        if len(lines) >= count or time.monotonic() > end:
            return lines
        time.sleep(0.01)


def test_whatever_a_stranger_sends_is_refused_and_logged(door):
    log = door[1] / REFUSALS
    for kind, calls in STRANGERS.items():
        before = len(log.read_text().splitlines())
        statuses = [ask(door, *call) for call in calls]
        assert all(400 <= status < 500 for status in statuses), kind
        lines = lines_after(log, before, len(calls))
        assert Counter(int(each.split()[2]) for each in lines) == Counter(statuses)
        for (_, method, path), line in zip(calls, lines, strict=True):
            assert f'"{method} {path} HTTP/1.1"' in line

    assert not any((door[1] / "shards").rglob("00"))
    assert sum(map(len, STRANGERS.values())) >= 20


def test_a_log_that_is_full_is_put_aside_once(tmp_path):
    assert not turn_over(tmp_path)
    (tmp_path / REFUSALS).write_bytes(b"x")
    assert not turn_over(tmp_path)
    with (tmp_path / REFUSALS).open("wb") as log:
        log.truncate(LARGEST_LOG)

    assert turn_over(tmp_path)
    assert not (tmp_path / REFUSALS).exists()
