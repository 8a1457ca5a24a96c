"""A consortium's folder: an authority, what the server needs, and a kit for each site.

    authority/ca.key ca.crt            signs the server's certificate; stays offline
    server/ca.crt server.crt server.key
    server/nginx.conf                  the reverse proxy that is open to the outside
    server/nodes/SITE.pub              the public key of each site, to be registered
    server/nodes/SITE.crt              the certificate by which nginx knows it
    server/nodes/SITE.revoked          a site that takes part no longer
    kits/SITE.tar.gz                   what a hospital gets, its private key included

Every file is whole or absent. A site has been provided for when its public key is
there; its kit is in place by then, and may be removed once it was handed over.
"""

import io
import json
import tarfile
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ctflow_fed.deployment.certificates import (
    authority_certificate,
    certificate_serves,
    identity_text,
    load_key,
    new_key,
    node_key_text,
    node_public_text,
    server_certificate,
    site_certificate,
    write_key,
)
from ctflow_fed.deployment.consortium import Consortium
from ctflow_fed.deployment.proxy import nginx_config
from ctflow_fed.deployment.site.policy import SITE_TOML
from ctflow_fed.errors import MismatchError, SettingsError
from ctflow_fed.files import write_atomically, write_bytes, write_private, write_text

__all__ = ["Provision", "provision"]

START = """\
#!/bin/sh
# Take part in the federation with the store of latents that is named.
exec ctflow federation site --kit "$(dirname -- "$0")" --store "$@"
"""

README = """\
Kit of {site} for the federation {name} at {host}:{port}
---------------------------------------------------------
ca.crt     the authority that the server's certificate must come from
site.key   what this site proves itself with: nobody but this site may have it
site.pem   the same key with a certificate, for weights that are sent as files and for
           rounds in which the server reads sums only
kit.json   the name of this site and the address of the server
site.toml  what this site allows: yours to change, line by line
start.sh   ./start.sh STORE takes part with a store made by `ctflow intake`; beside it
           grow flower/, of Flower, and state/, weights and what training goes on from

Install ctflow-fed[federation] in the version of the coordinator and keep the clock with
NTP. Read site.toml, then approve the programs that will run here, and start:

    ctflow federation site approve --kit {site}
    {site}/start.sh STORE

Run it as a user of its own under a service manager that restarts it. All that comes,
leaves and is refused is in audit.jsonl: ctflow federation site audit --kit {site}
Whoever may have seen site.key: ask the coordinator for a new kit.
"""


@dataclass(frozen=True)
class Provision:
    """What was done: kits that are new, sites revoked, whether the server's is new."""

    issued: tuple[str, ...]
    revoked: tuple[str, ...]
    server: bool


def provision(
    consortium: Consortium,
    folder: Path,
    reissue: Collection[str] = (),
    revoke: Collection[str] = (),
) -> Provision:
    """Make what is not there yet, issue kits anew for some sites, revoke others.

    The server's certificate is made anew a month before it ends. What was killed is
    finished by the same call again. Raises ``MismatchError`` when the folder belongs
    to a server at another address, which the kits that were handed over name.
    """
    _check_names(consortium, reissue, revoke)
    _check_address(consortium, folder)
    server = _provide_server(consortium, folder)
    nodes = folder / "server" / "nodes"
    for site in revoke:
        write_atomically(nodes / f"{site}.revoked", Path.touch)
    for site in consortium.sites:
        if site not in reissue and (nodes / f"{site}.revoked").exists():
            (nodes / f"{site}.pub").unlink(missing_ok=True)
            (nodes / f"{site}.crt").unlink(missing_ok=True)
            (folder / "kits" / f"{site}.tar.gz").unlink(missing_ok=True)
    issued = [
        site
        for site in consortium.sites
        if site in reissue
        or not any((nodes / f"{site}.{end}").exists() for end in ("pub", "revoked"))
    ]
    for site in issued:
        _issue(consortium, folder, site)
    return Provision(tuple(issued), tuple(revoke), server)


def _check_names(
    consortium: Consortium, reissue: Collection[str], revoke: Collection[str]
) -> None:
    if not {*reissue, *revoke} <= set(consortium.sites):
        raise SettingsError(
            "expected names of the consortium to re-issue or revoke, got another; "
            "they are listed as `sites` in its description"
        )
    if set(reissue) & set(revoke):
        raise SettingsError("a site is either re-issued or revoked, not both at once")


def _check_address(consortium: Consortium, folder: Path) -> None:
    path, address = folder / "address", f"{consortium.host}:{consortium.port}\n"
    if not path.exists():
        write_text(path, address)
    if path.read_text("utf-8") != address:
        raise MismatchError(
            "the kits of this folder name another host or port of the server; "
            "restore these in the description, or provision into a new folder"
        )


def _provide_server(consortium: Consortium, folder: Path) -> bool:
    """Make the authority and the server's certificate unless they are there."""
    authority, server = folder / "authority", folder / "server"
    if not (authority / "ca.crt").exists():
        key = new_key()
        write_key(authority / "ca.key", key)
        write_bytes(authority / "ca.crt", authority_certificate(key, consortium.name))
    issuer = (authority / "ca.crt").read_bytes()
    write_bytes(server / "ca.crt", issuer)
    write_bytes(server / "nginx.conf", nginx_config(consortium.port).encode())
    (server / "nginx").mkdir(exist_ok=True)
    if _is_served(server, consortium.host, issuer):
        return False
    signer, key = load_key(authority / "ca.key"), new_key()
    write_key(server / "server.key", key)
    certificate = server_certificate(key, consortium.host, signer, issuer)
    write_bytes(server / "server.crt", certificate)
    return True


def _is_served(server: Path, host: str, issuer: bytes) -> bool:
    certificate, key = server / "server.crt", server / "server.key"
    if not (certificate.exists() and key.exists()):
        return False
    return certificate_serves(certificate.read_bytes(), load_key(key), host, issuer)


def _issue(consortium: Consortium, folder: Path, site: str) -> None:
    """Write the kit of a site, then its public key, which makes it valid."""
    key, nodes, authority = new_key(), folder / "server" / "nodes", folder / "authority"
    issuer, signer = (authority / "ca.crt").read_bytes(), load_key(authority / "ca.key")
    certificate = site_certificate(key, site, signer, issuer)
    words = {"site": site, "name": consortium.name}
    words |= {"host": consortium.host, "port": str(consortium.port)}
    members = {
        "ca.crt": (issuer, 0o644),
        "site.key": (node_key_text(key), 0o600),
        "site.pem": (identity_text(key, certificate), 0o600),
        "kit.json": (_kit(consortium, site), 0o644),
        "site.toml": (SITE_TOML.encode(), 0o644),
        "start.sh": (START.encode(), 0o755),
        "README": (README.format(**words).encode(), 0o644),
    }
    write_private(folder / "kits" / f"{site}.tar.gz", _archive(site, members))
    write_bytes(nodes / f"{site}.crt", certificate)
    write_bytes(nodes / f"{site}.pub", node_public_text(key) + f" {site}\n".encode())
    (nodes / f"{site}.revoked").unlink(missing_ok=True)


def _kit(consortium: Consortium, site: str) -> bytes:
    address = f"{consortium.host}:{consortium.port}"
    return json.dumps({"site": site, "server": address}).encode() + b"\n"


def _archive(site: str, members: dict[str, tuple[bytes, int]]) -> bytes:
    """Return a tar.gz of one folder that only its owner may enter."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        root = tarfile.TarInfo(site)
        root.type, root.mode, root.mtime = tarfile.DIRTYPE, 0o700, int(time.time())
        archive.addfile(root)
        for name, (content, mode) in members.items():
            info = tarfile.TarInfo(f"{site}/{name}")
            info.size, info.mode, info.mtime = len(content), mode, root.mtime
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
