"""The keys of a site for one round, signed with the key of its node."""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from ctflow_fed.errors import UpdateError
from ctflow_fed.federation.secure.masks import public_of
from ctflow_fed.federation.secure.terms import Terms

__all__ = [
    "Advertisement",
    "Registry",
    "Wire",
    "commitment_of",
    "read_advertisements",
    "set_digest",
]

Registry = Mapping[str, ec.EllipticCurvePublicKey]
"""The long-term public key of each site, from a source that is not the server."""

Wire = Mapping[str, bytes]
"""An advertisement as it travels."""

ALGORITHM = ec.ECDSA(hashes.SHA384())
KEY_BYTES = 32
SIGNATURE_BYTES = 200  # of P-521, the longest curve that Flower takes, 139


class Advertisement(NamedTuple):
    """Public keys for shares and for masks, and the hash of the seed of the own mask.

    With the hash the server finds a wrong share of the seed, and learns nothing: a seed
    has 256 random bits.
    """

    cipher: bytes
    mask: bytes
    commitment: bytes

    @classmethod
    def of(cls, cipher: bytes, mask: bytes, seed: bytes) -> "Advertisement":
        """Return what a site advertises that has these secrets."""
        return cls(public_of(cipher), public_of(mask), commitment_of(seed))

    def signed(self, site: str, key: ec.EllipticCurvePrivateKey, terms: Terms) -> Wire:
        """Return the advertisement as it travels."""
        signature = key.sign(_signed_bytes(self, site, terms), ALGORITHM)
        return {**self._asdict(), "signature": signature}


def commitment_of(seed: bytes) -> bytes:
    """Return the SHA-256 of a seed."""
    return hashlib.sha256(seed).digest()


def read_advertisements(
    wires: Mapping[str, Wire], registry: Registry, terms: Terms
) -> dict[str, Advertisement]:
    """Return what sites advertise; what they did not sign raises ``UpdateError``."""
    return {site: _read(site, wires[site], registry, terms) for site in sorted(wires)}


def set_digest(advertisements: Mapping[str, Advertisement]) -> str:
    """Return the digest of a set of advertisements."""
    lines = [
        f"{site} {b''.join(advertisements[site]).hex()}"
        for site in sorted(advertisements)
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _read(site: str, wire: Wire, registry: Registry, terms: Terms) -> Advertisement:
    if site not in terms.shares or site not in registry:
        raise UpdateError(
            "expected advertisements of the sites of the round, got one of a site "
            "without a known key; give every site the public keys of all"
        )
    values = [wire.get(key) for key in (*Advertisement._fields, "signature")]
    *keys, signature = [each if isinstance(each, bytes) else b"" for each in values]
    if any(len(each) != KEY_BYTES for each in keys) or (
        len(signature) > SIGNATURE_BYTES
    ):
        raise UpdateError(
            f"expected keys of {KEY_BYTES} bytes and a signature from {site}, got "
            "other lengths; install the same version everywhere"
        )
    advertisement = Advertisement(*keys)
    try:
        registry[site].verify(
            signature, _signed_bytes(advertisement, site, terms), ALGORITHM
        )
    except InvalidSignature:
        raise UpdateError(
            f"expected keys that {site} signed for these terms, got others; "
            "compare the public keys of the sites, and do not trust the server"
        ) from None
    return advertisement


def _signed_bytes(advertisement: Advertisement, site: str, terms: Terms) -> bytes:
    return terms.context("advertise", site, *(each.hex() for each in advertisement))
