"""Whose key is whose: the public keys of a consortium's sites, by their files."""

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from ctflow_fed.errors import PackageError
from ctflow_fed.federation import check_site_name

__all__ = ["read_registry", "registered"]


def read_registry(nodes: Path) -> dict[bytes, str]:
    """Return the site of each public key in a folder of SITE.pub, without the revoked.

    A key is PEM, as Flower gives that of a node.
    """
    return {_read_key(nodes / f"{site}.pub"): site for site in registered(nodes)}


def registered(nodes: Path) -> list[str]:
    """Return the sites that have a public key in a folder, without the revoked."""
    if not nodes.is_dir():
        raise PackageError(
            "expected the folder of the sites' public keys, got none; "
            "make it with: ctflow federation provision"
        )
    return [
        check_site_name(path.stem)
        for path in sorted(nodes.glob("*.pub"))
        if not path.with_suffix(".revoked").exists()
    ]


def _read_key(path: Path) -> bytes:
    try:
        key = serialization.load_ssh_public_key(path.read_bytes())
    except (ValueError, UnsupportedAlgorithm):
        raise PackageError(
            f"{path.name} is not the public key of a site; restore it"
        ) from None
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
