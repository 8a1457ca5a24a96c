"""The key that turns a site's names into ids; it stays at the site."""

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from ctflow_fed.errors import StoreError
from ctflow_fed.files import write_private

__all__ = ["SiteKey", "key_path"]


def key_path(store: Path) -> Path:
    """Return where the key of a store is: beside it, so that no copy of it has both."""
    folder = store.absolute()
    return folder.with_name(f"{folder.name}.key")


class SiteKey:
    """Turns names into ids that nobody can guess who has not the key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def of(cls, store: Path, *, new: bool) -> "SiteKey":
        """Read the key of a store, for its owner alone; make it for a ``new`` store.

        A key that older versions left inside the store is taken out of it.

        Raises ``StoreError`` where a store with studies has no key.
        """
        path, inside = key_path(store), store / "site.key"
        if inside.exists() and not path.exists():
            inside.replace(path)
        if new and not path.exists():
            write_private(path, secrets.token_hex(32).encode())
        try:
            key = bytes.fromhex(path.read_text(encoding="ascii"))
        except (OSError, ValueError):
            key = b""
        if len(key) != 32:
            raise StoreError(
                "expected the key of the store beside it (its name and .key), found "
                "none or a broken one; restore it, or take the studies in again into a "
                "new folder"
            )
        return cls(key)

    def hashed(self, name: str) -> str:
        """Return 32 digits of the HMAC-SHA-256 of a name."""
        return hmac.new(self._key, os.fsencode(name), hashlib.sha256).hexdigest()[:32]
