"""The shards of large weights between a site and its server, over HTTPS.

The site's launcher fetches and sends them; the program that trains sees files. A link
that breaks is waited for: a download goes on where it ended, an upload with the shard
that was not taken.
"""

import ssl
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import httpx

from ctflow_fed.errors import IncompleteError, MismatchError, UpdateError
from ctflow_fed.federation.shards import Shard, check_shard

__all__ = ["ShardLink"]

CALL_SECONDS = 60.0
LONGEST_PAUSE = 15.0
PIECE = 2**20


class ShardLink:
    """A site's way to the shards at ``address``, HOST:PORT of its server.

    ``authority`` is the certificate that the server's must come from, ``identity`` the
    site's own with its key. A call gives up after ``patience`` seconds without success.
    Used with ``with``, for it keeps its connection.
    """

    def __init__(
        self, address: str, authority: Path, identity: Path, patience: float = 900.0
    ) -> None:
        context = ssl.create_default_context(cafile=str(authority))
        context.load_cert_chain(identity)
        self._patience = patience
        self._client = httpx.Client(
            base_url=f"https://{address}/v1/shards/",
            verify=context,
            timeout=CALL_SECONDS,
        )

    def __enter__(self) -> "ShardLink":
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()

    def fetch(self, shards: Sequence[Shard], folder: Path) -> None:
        """Bring shards into a folder; those that are there stay, all else goes.

        Raises ``UpdateError`` where the server has none or other bytes than were named,
        ``MismatchError`` where it refuses, ``IncompleteError`` where it is silent.
        """
        folder.mkdir(parents=True, exist_ok=True)
        kept = {name for s in shards for name in (s.digest, f".partial-{s.digest}")}
        for path in folder.iterdir():
            if path.name not in kept:
                path.unlink()
        for shard in shards:
            if not (folder / shard.digest).exists():
                self._fetch(shard, folder)

    def send(self, shards: Sequence[Shard], folder: Path, site: str) -> None:
        """Put shards of a folder into the site's places at the server, in their order.

        Raises as `fetch` does.
        """
        for number, shard in enumerate(shards):
            place = f"up/{site}/{number:02d}"
            self._insist(partial(self._put, folder / shard.digest, place))

    def _fetch(self, shard: Shard, folder: Path) -> None:
        coming = folder / f".partial-{shard.digest}"
        self._insist(partial(self._get, shard, coming))
        try:
            check_shard(coming, shard)
        except UpdateError:
            coming.unlink(missing_ok=True)
            raise
        coming.replace(folder / shard.digest)

    def _get(self, shard: Shard, coming: Path) -> None:
        """Go on with a download where it ended."""
        done = coming.stat().st_size if coming.exists() else 0
        if done >= shard.size:
            return
        asked = {"range": f"bytes={done}-"} if done else {}
        with self._client.stream(
            "GET", f"down/{shard.digest}", headers=asked
        ) as answer:
            _check(answer, 206 if done else 200)
            with coming.open("ab") as file:
                for piece in answer.iter_raw(PIECE):
                    done += len(piece)
                    if done > shard.size:
                        break  # more than was named: the check refuses it
                    file.write(piece)

    def _put(self, path: Path, place: str) -> None:
        with path.open("rb") as file:
            _check(self._client.put(place, content=file), 201, 204)

    def _insist(self, call: Callable[[], None]) -> None:
        """Call again, after longer and longer pauses, while the link is broken."""
        end, pause = time.monotonic() + self._patience, 0.5
        while True:
            try:
                return call()
            except httpx.TransportError:
                if time.monotonic() + pause > end:
                    raise IncompleteError(
                        f"the server's shards could not be reached for "
                        f"{self._patience:g} s; the round goes on without this site"
                    ) from None
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


def _check(answer: httpx.Response, *expected: int) -> None:
    """Refuse an answer that will not change; take one that may for a broken link."""
    if answer.status_code in expected:
        return
    if answer.status_code >= 500:
        raise httpx.TransportError(f"the server answers {answer.status_code}")
    if answer.status_code == httpx.codes.NOT_FOUND:
        raise UpdateError(
            "the server has that shard no longer; it has gone on to another order"
        )
    raise MismatchError(
        f"expected the server to take and give shards, got {answer.status_code}; "
        "is this site's certificate in its kit, and not revoked?"
    )
