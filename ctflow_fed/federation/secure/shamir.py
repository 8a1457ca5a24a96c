"""Secrets in shares of which any ``threshold`` tell all and fewer tell nothing.

Shamir 1979: the secret is the value at 0 of a random polynomial over a prime field.
"""

import secrets
from collections.abc import Iterable, Mapping

from ctflow_fed.errors import UpdateError

__all__ = ["SHARE_BYTES", "combine", "split"]

PRIME = 2**521 - 1  # a Mersenne prime, larger than any secret of 32 bytes
SECRET_BYTES = 32
SHARE_BYTES = 66


def split(secret: bytes, points: Iterable[int], threshold: int) -> dict[int, bytes]:
    """Return the share of a secret of 32 bytes at each point, none of which is 0."""
    coefficients = [int.from_bytes(secret, "big")]
    coefficients += [secrets.randbelow(PRIME) for _ in range(threshold - 1)]
    return {
        point: _value(coefficients, point).to_bytes(SHARE_BYTES, "big")
        for point in points
    }


def combine(shares: Mapping[int, bytes]) -> bytes:
    """Return the secret that ``threshold`` shares, or more, are of.

    Shares that are not of one secret raise ``UpdateError``, or give another secret.
    """
    values = {point: _number(share) for point, share in shares.items()}
    secret = (
        sum(value * _weight(point, values) for point, value in values.items()) % PRIME
    )
    if secret >= 2 ** (8 * SECRET_BYTES):
        raise UpdateError(
            "expected shares of one secret, got others; repeat the round without the "
            "site that sent them"
        )
    return secret.to_bytes(SECRET_BYTES, "big")


def _value(coefficients: list[int], point: int) -> int:
    total = 0
    for each in reversed(coefficients):
        total = (total * point + each) % PRIME
    return total


def _weight(point: int, points: Iterable[int]) -> int:
    """Return Lagrange's polynomial of ``point`` at 0."""
    above, below = 1, 1
    for other in points:
        if other != point:
            above = above * other % PRIME
            below = below * (other - point) % PRIME
    return above * pow(below, -1, PRIME) % PRIME


def _number(share: bytes) -> int:
    number = int.from_bytes(share, "big")
    if len(share) != SHARE_BYTES or number >= PRIME:
        raise UpdateError(
            f"expected a share of {SHARE_BYTES} bytes in the field, got something "
            "else; install the same version everywhere"
        )
    return number
