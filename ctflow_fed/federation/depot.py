"""The server's side of shards: those that it offers, and those that came from sites.

    down/DIGEST     what sites may fetch
    up/SITE/NN      where a site puts its shards, one number after the other

One kind of arrays has one set of shards at a time: what is offered takes the place of
what was offered before.
"""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from ctflow_fed.federation.arrays import Manifest
from ctflow_fed.federation.ledger import written
from ctflow_fed.federation.shards import Cargo, Shard, check_shards, stow

__all__ = ["Depot"]


class Depot:
    """Shards of a job in the folder ``folder``, and in ``arrived`` those it took in."""

    def __init__(self, folder: Path, arrived: Path) -> None:
        self.folder, self._arrived = folder, arrived
        self._offered: dict[str, Cargo] = {}

    def offer(
        self,
        kind: str,
        pieces: Iterable[tuple[str, bytes]],
        manifest: Manifest,
        precision: str,
    ) -> Cargo:
        """Return arrays as they go with an order; those in shards may be fetched."""
        with written():
            cargo = stow(pieces, manifest, precision, self.folder / "down")
            self._show(cargo)
        before = self._shards()
        self._offered[kind] = cargo
        for shard in before - self._shards():
            (self.folder / "down" / shard.digest).unlink(missing_ok=True)
        return cargo

    def take(self, shards: Sequence[Shard], site: str) -> Path:
        """Take the shards of a site out of its reach; return the folder they are in.

        Raises ``UpdateError`` where one is not what the site's message names.
        """
        folder = self._arrived / site
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for number, shard in enumerate(shards):
            place = self.folder / "up" / site / f"{number:02d}"
            if place.is_file():
                shutil.move(place, folder / shard.digest)
        check_shards(folder, shards)
        return folder

    def clear(self) -> None:
        """Remove what has arrived, once it is no longer needed."""
        shutil.rmtree(self._arrived, ignore_errors=True)

    def close(self) -> None:
        """Remove what was offered, and all that has arrived."""
        for shard in self._shards():
            (self.folder / "down" / shard.digest).unlink(missing_ok=True)
        self._offered.clear()
        self.clear()

    def _show(self, cargo: Cargo) -> None:
        """Let nginx read shards, which may be another user."""
        for shard in cargo if isinstance(cargo, tuple) else ():
            (self.folder / "down" / shard.digest).chmod(0o644)

    def _shards(self) -> set[Shard]:
        cargoes = [each for each in self._offered.values() if isinstance(each, tuple)]
        return {shard for cargo in cargoes for shard in cargo}
