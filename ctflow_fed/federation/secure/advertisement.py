"""What a site signs with its node's key: its keys for one round, and who is in it."""

import hashlib
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from ctflow_fed.errors import UpdateError
from ctflow_fed.federation.secure.masks import public_of
from ctflow_fed.federation.secure.terms import Terms

__all__ = [
    "Advertisement",
    "Identify",
    "PrivateKey",
    "Wire",
    "agreement",
    "commitment_of",
    "read_advertisements",
    "set_digest",
    "sign_survivors",
]

PrivateKey = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey

Identify = Callable[[str, bytes], PublicKey]
"""Returns the key of a site from its certificate, which is not the server's to make.

Raises ``UpdateError`` for a certificate of nobody's, or of another site."""

Wire = Mapping[str, bytes]
"""An advertisement as it travels."""

ALGORITHM = ec.ECDSA(hashes.SHA384())
KEY_BYTES = 32
CERTIFICATE_BYTES = 4096
SIGNATURE_BYTES = 200  # of P-521, the longest curve that Flower takes, 139


class Advertisement(NamedTuple):
    """Public keys for shares and for masks, and the hash of the seed of the own mask.

    ``certificate`` is that of the node's key, which signs all of it. With the hash the
    server finds a wrong share of the seed, and learns nothing: a seed has 256 random
    bits.
    """

    cipher: bytes
    mask: bytes
    commitment: bytes
    certificate: bytes

    @classmethod
    def of(
        cls, cipher: bytes, mask: bytes, seed: bytes, certificate: bytes
    ) -> "Advertisement":
        """Return what a site advertises that has these secrets."""
        keys = public_of(cipher), public_of(mask)
        return cls(*keys, commitment_of(seed), certificate)

    def signed(self, site: str, key: PrivateKey, terms: Terms) -> Wire:
        """Return the advertisement as it travels."""
        signature = key.sign(_signed_bytes(self, site, terms), ALGORITHM)
        return {**self._asdict(), "signature": signature}


def commitment_of(seed: bytes) -> bytes:
    """Return the SHA-256 of a seed."""
    return hashlib.sha256(seed).digest()


def read_advertisements(
    wires: Mapping[str, Wire], identify: Identify, terms: Terms
) -> dict[str, Advertisement]:
    """Return what sites advertise; what they did not sign raises ``UpdateError``."""
    return {site: _read(site, wires[site], identify, terms) for site in sorted(wires)}


def sign_survivors(
    survivors: Collection[str], site: str, key: PrivateKey, terms: Terms
) -> bytes:
    """Return the word of a site that these are the sites in the sum."""
    return key.sign(_agreed_bytes(survivors, site, terms), ALGORITHM)


def agreement(
    signatures: Mapping[str, bytes],
    survivors: Collection[str],
    keys: Mapping[str, PublicKey],
    terms: Terms,
) -> dict[str, bytes]:
    """Return the signatures of those in a sum who say that these are all in it.

    A site signs once, and a threshold is more than half of all: no two sums are agreed
    on by honest sites (Fig. 4, round 3). Fewer than that raise ``UpdateError``.
    """
    agreed = {
        site: signature
        for site, signature in signatures.items()
        if site in survivors
        and _verifies(keys[site], signature, _agreed_bytes(survivors, site, terms))
    }
    if len(agreed) < terms.threshold:
        raise UpdateError(
            f"expected the word of {terms.threshold} sites on who is in the sum, got "
            f"that of {len(agreed)}; the server has told sites different things, or "
            "the round has to be repeated"
        )
    return agreed


def set_digest(advertisements: Mapping[str, Advertisement]) -> str:
    """Return the digest of a set of advertisements."""
    lines = [
        f"{site} {b''.join(advertisements[site]).hex()}"
        for site in sorted(advertisements)
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _read(site: str, wire: Wire, identify: Identify, terms: Terms) -> Advertisement:
    if site not in terms.shares:
        raise UpdateError(
            "expected advertisements of the sites of the round, got one of another "
            "site; repeat the round as another attempt"
        )
    values = [wire.get(key) for key in (*Advertisement._fields, "signature")]
    cipher, mask, commitment, certificate, signature = (
        each if isinstance(each, bytes) else b"" for each in values
    )
    keys = (cipher, mask, commitment)
    if (
        any(len(each) != KEY_BYTES for each in keys)
        or len(certificate) > CERTIFICATE_BYTES
        or len(signature) > SIGNATURE_BYTES
    ):
        raise UpdateError(
            f"expected keys of {KEY_BYTES} bytes and a signature from {site}, got "
            "other lengths; install the same version everywhere"
        )
    advertisement = Advertisement(*keys, certificate)
    signed = _signed_bytes(advertisement, site, terms)
    if not _verifies(identify(site, certificate), signature, signed):
        raise UpdateError(
            f"expected keys that {site} signed for these terms, got others; "
            "do not trust the server before you know why"
        )
    return advertisement


def _verifies(key: PublicKey, signature: bytes, content: bytes) -> bool:
    try:
        key.verify(signature, content, ALGORITHM)
    except InvalidSignature:
        return False
    return True


def _agreed_bytes(survivors: Collection[str], site: str, terms: Terms) -> bytes:
    return terms.context("confirm", site, *sorted(survivors))


def _signed_bytes(advertisement: Advertisement, site: str, terms: Terms) -> bytes:
    return terms.context("advertise", site, *(each.hex() for each in advertisement))
