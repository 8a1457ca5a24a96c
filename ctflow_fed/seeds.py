"""Randomness as a function of what it is for, never of what happened before.

A resumed run draws what an unbroken run would have drawn, because the generator of
each step is made anew from (seed, round, site, step).
"""

import hashlib

__all__ = ["derive_seed"]


def derive_seed(*parts: int | str) -> int:
    """Return a 63-bit seed that depends on every part and on their order."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
