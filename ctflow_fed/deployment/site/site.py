"""The site that a kit and a store make: its policy, its log, and what it holds."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ctflow_fed.ct.store import LatentStore
from ctflow_fed.deployment.shard_link import ShardLink
from ctflow_fed.deployment.site.amounts import DELTA, Holdings
from ctflow_fed.deployment.site.approval import check_approved
from ctflow_fed.deployment.site.audit import AuditLog, Entry
from ctflow_fed.deployment.site.policy import Policy
from ctflow_fed.deployment.site.secure import SecureDesk, open_desk
from ctflow_fed.federation import (
    Arrays,
    Manifest,
    RoundOrder,
    Shard,
    SiteState,
    arrays_digest,
    check_shards,
    encoded_bytes,
    norm_of,
    spent_beside,
    unstow,
)
from ctflow_fed.training import PrivacyLedger

__all__ = ["Site"]


@dataclass(frozen=True)
class Site:
    """A site that takes part; with ``dry_run`` it shows its answers, line by line.

    ``address`` is the HOST:PORT of its server; ``lengths`` are those of the bases of
    adapters that were measured, by digest.
    """

    name: str
    address: str
    kit: Path
    store: Path
    policy: Policy
    audit: AuditLog
    say: Callable[[str], None]
    dry_run: bool = False
    lengths: dict[str, float] = field(default_factory=dict)

    def holdings(self) -> Holdings:
        """Return how much the store has now."""
        records = LatentStore.open(self.store).records
        return Holdings(len(records), sum(record.slices for record in records))

    @property
    def state(self) -> Path:
        """The folder of what the site keeps from message to message."""
        return self.kit / "state"

    @property
    def desk(self) -> SecureDesk:
        """The site's part in secure rounds."""
        secrets, least = self.state / "secure", self.policy.minimum_sites
        return open_desk(self.name, self.kit, secrets, least)

    def weights_of(self, order: RoundOrder) -> tuple[Arrays, float] | None:
        """Return the weights that an order names, and the length of all of a network.

        They are what the site was sent; None where it holds others. The program could
        write into their folder.
        """
        state = SiteState(self.state, order.job, doubting=True)
        weights = state.weights()
        if weights is None or arrays_digest(weights) != order.start:
            return None
        if not order.base:
            return weights, norm_of(weights)
        if order.base not in self.lengths:
            base = state.base(order.base)
            if base is None:
                return None
            self.lengths[order.base] = norm_of(base)
        return weights, self.lengths[order.base]

    def ledger_of(self, order: RoundOrder) -> PrivacyLedger | None:
        """Return what the job of a private order has spent of the site's budget."""
        if order.privacy is None:
            return None
        return SiteState(self.state, order.job).ledger(order.privacy)

    def spent_beside(self, order: RoundOrder) -> float:
        """Return the epsilon that all jobs but that of a private order have spent."""
        if order.privacy is None:
            return 0.0
        return spent_beside(self.state, order.job, DELTA)

    def fetch(self, shards: Sequence[Shard]) -> None:
        """Bring the shards of a question to where the program looks for them."""
        if shards:
            with self._link() as link:
                link.fetch(shards, self.state / "inbox")

    def sent(
        self, shards: Sequence[Shard], manifest: Manifest, precision: str
    ) -> Arrays:
        """Return the arrays that the program has put into shards, which are checked."""
        outbox = self.state / "outbox"
        check_shards(outbox, shards)
        return unstow(tuple(shards), manifest, precision, outbox)

    def send(self, shards: Sequence[Shard]) -> None:
        """Send the shards of an answer."""
        if shards:
            with self._link() as link:
                link.send(shards, self.state / "outbox", self.name)

    def clear(self) -> None:
        """Remove the shards of a question that has been answered."""
        for folder in ("inbox", "outbox"):
            shutil.rmtree(self.state / folder, ignore_errors=True)

    def _link(self) -> ShardLink:
        return ShardLink(self.address, self.kit / "ca.crt", self.kit / "site.pem")

    def past(self) -> list[Entry]:
        """Return all that is in the audit log."""
        return [entry for _, entry in self.audit.entries()]

    def check_bundle(self, digest: str) -> None:
        """Refuse a bundle that is not approved at this moment."""
        check_approved(self.kit, digest)

    def show(self, kind: str, records: Mapping[str, Mapping[str, object]]) -> None:
        """Say which values an answer to ``kind`` would send."""
        self.say(f"dry run: the answer to {kind} would be")
        for name, values in records.items():
            for key, value in values.items():
                self.say(f"  {name}.{key} = {value!r}")

    def show_arrays(self, manifest: Manifest, precision: str) -> None:
        """Say which arrays an answer would send, and how large each is."""
        for name, shape in manifest.items():
            size = encoded_bytes({name: shape}, precision)
            self.say(f"  {name} {list(shape)} {precision} {size} bytes")
