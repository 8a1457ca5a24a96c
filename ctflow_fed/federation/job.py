"""A federated job as the server holds it: its folder and the model so far."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ctflow_fed.errors import MismatchError, PackageError
from ctflow_fed.federation.aggregate import shares_of
from ctflow_fed.federation.encoding import compress
from ctflow_fed.federation.ledger import ADAPTER, STATE, Ledger, RoundRecord
from ctflow_fed.federation.order import RoundOrder
from ctflow_fed.federation.parcel import Change
from ctflow_fed.federation.part import AdapterPart, Part, part_of
from ctflow_fed.federation.payload import (
    Arrays,
    arrays_digest,
    arrays_of,
    minus,
    plus,
)
from ctflow_fed.federation.preflight import (
    SiteFacts,
    agreed_header,
    mean_slices,
    mean_spacing,
)
from ctflow_fed.federation.server_state import beside, read_beside, save_beside
from ctflow_fed.federation.settings import FederationSettings
from ctflow_fed.federation.strategies import (
    STRATEGIES,
    ServerState,
    advance,
    follow,
)
from ctflow_fed.model import (
    FMvT,
    ModelPackage,
    Provenance,
    load_package,
    save_package,
    start_network,
)
from ctflow_fed.training import check_channels, check_origin
from ctflow_fed.training.adapters import save_adapter
from ctflow_fed.training.merge import Adapter
from ctflow_fed.weights import weights_digest

__all__ = ["Job", "open_job"]


@dataclass
class Job:
    """A job between two rounds; ``network`` is the global model after ``ledger``.

    ``part`` is what of a network the job trains, ``state`` what the server carries on,
    and ``change`` what leads to its weights from those before, as it is sent; all but
    ``part`` change with `advance`. ``origin`` is the provenance of the model that
    ``network`` was read from, if any, ``parent`` the digest of the weights that the job
    began with.
    """

    settings: FederationSettings
    ledger: Ledger
    network: FMvT
    part: Part
    state: ServerState
    origin: Provenance | None
    parent: str
    change: Change | None = None

    @property
    def is_played(self) -> bool:
        """Tell whether no round is left to play: all are done, or the best is over."""
        done, patience = self.ledger.rounds, self.settings.patience
        is_over = 0 < patience <= done - self.ledger.best
        return done >= self.settings.rounds or is_over or self.is_spent(())

    def is_spent(self, more: Collection[str]) -> bool:
        """Tell whether the privacy budgets of too many sites are spent to go on.

        ``more`` are sites that are known to have spent theirs since the last round.
        """
        spent = {*self.ledger.spent, *more}
        left = len(self.settings.sites) - len(spent)
        return bool(spent) and left < self.settings.min_sites

    @property
    def is_finished(self) -> bool:
        """Tell whether nothing is left to do."""
        return self.is_played and self.ledger.is_published

    @property
    def chosen(self) -> int:
        """The round whose model is the result: the best with patience, or the last."""
        return self.ledger.best if self.settings.patience else self.ledger.rounds

    @property
    def digest(self) -> str:
        """The digest of the weights of the global model."""
        return weights_digest(self.network.state_dict())

    @property
    def beside(self) -> Arrays:
        """What of the server's state the package of the model does not hold."""
        return beside(self.state, merged=isinstance(self.part, AdapterPart))

    def publish(self) -> None:
        """Write the result."""
        self.ledger.publish(self.chosen)

    def order(self, round_number: int, arrays: Arrays, sites: int) -> RoundOrder:
        """Return what so many sites are told in a round about the arrays it is on."""
        return RoundOrder(
            round_number=round_number,
            steps=self.settings.steps,
            seed=self.settings.seed,
            training=self.settings.training(),
            network=self.network.config,
            manifest=self.part.signature,
            start=arrays_digest(arrays),
            job=self.ledger.job,
            sites=sites,
            adapter_rank=self.settings.adapter_rank,
            base=self.part.base_digest,
            precision=self.settings.precision,
            optimizer=self.settings.optimizer,
            privacy=self.settings.privacy(),
        )

    def advance(self, updates: Mapping[str, Arrays], slices: Mapping[str, int]) -> None:
        """Make the next global model of the weights that the sites have trained."""
        settings, number = self.settings, self.ledger.rounds + 1
        strategy = STRATEGIES[settings.strategy]
        mean = strategy.average(updates, shares_of(slices, settings.max_share))
        state = advance(self.state, mean, strategy, settings.server_rate)
        if settings.precision != "float32":
            state = self._rounded(state)
        self.state = follow(state, settings.server_ema, number)
        self.network = self.part.network(self.state.model)

    def check_sites(self, facts: Sequence[SiteFacts]) -> None:
        """Refuse stores that do not fit one another or the model."""
        header = agreed_header(facts)
        check_channels(self.network, header)
        if self.origin is not None:
            check_origin(self.origin, header)
        size = (header.height, header.width)
        if self.origin and self.ledger.rounds and self.origin.latent_size != size:
            raise MismatchError(
                f"the job was begun with latents of {self.origin.latent_size}, the "
                f"sites have {size}; take the studies in with the image size of before"
            )

    def commit(self, record: RoundRecord, facts: Sequence[SiteFacts]) -> None:
        """Write a finished round: the package of ``network``, then the record."""
        header = agreed_header(facts)
        records = (*self.ledger.records, record)
        slices, spacing = self._typical_volume(facts)
        epsilon, delta = self._spent(record)
        provenance = Provenance(
            codec_id=header.codec_id,
            encoder_id=header.encoder_id,
            latent_size=(header.height, header.width),
            slices=slices,
            spacing=spacing,
            steps=record.round * self.settings.steps,
            seed=self.settings.seed,
            rounds=record.round,
            sites=len({site for each in records for site in each.slices}),
            parent=self.parent,
            method=self.settings.method,
            epsilon=epsilon,
            delta=delta,
        )

        def save(folder: Path) -> None:
            save_package(folder, self.network, provenance)
            save_beside(folder / STATE, self.beside)
            if isinstance(self.part, AdapterPart):
                changes = self.part.changes(self.state.model)
                base, rank = self.part.base_digest, self.part.settings
                adapter = Adapter(rank, base, changes, provenance)
                save_adapter(folder / ADAPTER, adapter)

        self.ledger.commit(record, save)

    def _typical_volume(
        self, facts: Sequence[SiteFacts]
    ) -> tuple[int, tuple[float, float, float]]:
        """Return slices and spacing: of the sites' volumes, privately of the parent's.

        A private job adapts a package, so that it has a parent.
        """
        if self.settings.is_private and self.origin is not None:
            return self.origin.slices, self.origin.spacing
        return mean_slices(facts), mean_spacing(facts)

    def _spent(self, record: RoundRecord) -> tuple[float | None, float | None]:
        """Return what the site that spent most has spent, and at which delta."""
        privacy = self.settings.privacy()
        if privacy is None:
            return None, None
        spent = {**self.ledger.epsilon, **record.epsilon}
        return max(spent.values(), default=0.0), privacy.delta

    def _rounded(self, state: ServerState) -> ServerState:
        """Return the state with the weights that sites get when the change is rounded.

        What rounding takes from it is part of the next change.
        """
        before = self.state.weights
        step = minus(state.weights, before)
        done = compress(step, self.state.residual, self.settings.precision)
        self.change = Change(arrays_digest(before), done.wire)
        weights = plus(before, done.arrived)
        return replace(state, weights=weights, residual=done.residual)


def open_job(settings: FederationSettings) -> Job:
    """Begin a job in its folder, or go on after its last finished round."""
    init = Path(settings.init) if settings.init else None
    network, package = start_network(settings.preset, init, settings.seed)
    parent = package.digest if package else ""
    identity = settings.identity()
    identity |= {"parent": parent, "network": asdict(network.config)}
    ledger = Ledger.open(Path(settings.out), identity)
    rank, private = settings.adapter_rank, settings.is_private
    part = part_of(network, rank, settings.seed, private=private)
    state = ServerState(part.first)
    if ledger.rounds:
        package, state = _last_round(ledger, merged=isinstance(part, AdapterPart))
        network = package.network
    origin = package.provenance if package else None
    return Job(settings, ledger, network, part, state, origin, parent)


def _last_round(ledger: Ledger, *, merged: bool) -> tuple[ModelPackage, ServerState]:
    """Read what the last finished round has left."""
    folder, record = ledger.checkpoint(ledger.rounds), ledger.records[-1]
    package = load_package(folder)
    if package.digest != record.digest:
        raise PackageError(
            f"the model of round {ledger.rounds} is not the one that rounds.jsonl "
            "names; restore the job's folder or begin in a new one"
        )
    model = {} if merged else arrays_of(package.network)
    return package, read_beside(folder / STATE, model, record.state)
