"""Keys that two sites share, and the streams of numbers that hide an update.

X25519 (RFC 7748), HKDF-SHA256 (RFC 5869), AES-256 in counter mode, and
ChaCha20-Poly1305 (RFC 8439). A key serves one purpose of one round, by its context.
"""

import secrets

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from ctflow_fed.errors import UpdateError
from ctflow_fed.federation.secure.terms import Terms

__all__ = ["add_mask", "derive", "open_sealed", "pair_key", "public_of", "seal"]

NONCE_BYTES = 12


def public_of(secret: bytes) -> bytes:
    """Return the X25519 public key of 32 secret bytes."""
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def derive(secret: bytes, context: bytes) -> bytes:
    """Return a key of 32 bytes for one purpose."""
    return HKDF(hashes.SHA256(), 32, salt=None, info=context).derive(secret)


def pair_key(secret: bytes, public: bytes, context: bytes) -> bytes:
    """Return the key of two sites; a public key that is no point is refused."""
    try:
        peer = X25519PublicKey.from_public_bytes(public)
        shared = X25519PrivateKey.from_private_bytes(secret).exchange(peer)
    except ValueError:
        raise UpdateError(
            "expected a public key on X25519, got other bytes; "
            "repeat the round without the site that sent them"
        ) from None
    return derive(shared, context)


def add_mask(
    total: NDArray[np.uint32], key: bytes, name: str, terms: Terms, *, sign: int
) -> None:
    """Add ``sign`` times the mask of the array ``name`` to ``total``, in place."""
    cipher = Cipher(
        algorithms.AES(derive(key, terms.context("array", name))),
        modes.CTR(bytes(16)),  # no key makes more than one stream
    )
    stream = cipher.encryptor().update(bytes(4 * total.size))
    mask = np.frombuffer(stream, "<u4").reshape(total.shape)
    (np.add if sign > 0 else np.subtract)(total, mask, out=total)


def seal(key: bytes, content: bytes, context: bytes) -> bytes:
    """Return content that only who has the key can read or change."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + ChaCha20Poly1305(key).encrypt(nonce, content, context)


def open_sealed(key: bytes, sealed: bytes, context: bytes) -> bytes:
    """Return what was sealed; what was changed or moved raises ``UpdateError``."""
    nonce, rest = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
    try:
        return ChaCha20Poly1305(key).decrypt(nonce, rest, context)
    except (InvalidTag, ValueError):
        raise UpdateError(
            "expected shares sealed for this round, sender and receiver, got others; "
            "repeat the round without the sender"
        ) from None
