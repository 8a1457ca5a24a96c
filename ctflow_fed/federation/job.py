"""A federated job as the server holds it: its folder and the model so far."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ctflow_fed.errors import MismatchError, PackageError
from ctflow_fed.federation.aggregate import shares_of
from ctflow_fed.federation.ledger import STATE, Ledger, RoundRecord
from ctflow_fed.federation.payload import (
    Arrays,
    arrays_digest,
    arrays_of,
    load_arrays,
    manifest_digest,
    manifest_of,
)
from ctflow_fed.federation.preflight import (
    SiteFacts,
    agreed_header,
    mean_slices,
    mean_spacing,
)
from ctflow_fed.federation.server_state import read_beside, save_beside
from ctflow_fed.federation.settings import FederationSettings, RoundOrder
from ctflow_fed.federation.strategies import (
    STRATEGIES,
    ServerState,
    advance,
    follow,
)
from ctflow_fed.model import (
    FMvT,
    Provenance,
    load_package,
    save_package,
    start_network,
)
from ctflow_fed.training import check_channels, check_origin

__all__ = ["Job", "open_job"]


@dataclass
class Job:
    """A job between two rounds; ``network`` is the global model after ``ledger``.

    ``state`` is what the server carries on; it and ``network`` change with `advance`.
    ``origin`` is the provenance of the model that ``network`` was read from, if any;
    ``parent`` is the digest of the weights that the job began with.
    """

    settings: FederationSettings
    ledger: Ledger
    network: FMvT
    state: ServerState
    origin: Provenance | None
    parent: str

    @property
    def is_played(self) -> bool:
        """Tell whether no round is left to play: all are done, or the best is over."""
        done, patience = self.ledger.rounds, self.settings.patience
        return done >= self.settings.rounds or (0 < patience <= done - self.ledger.best)

    @property
    def is_finished(self) -> bool:
        """Tell whether nothing is left to do."""
        return self.is_played and self.ledger.is_published

    @property
    def chosen(self) -> int:
        """The round whose model is the result: the best with patience, or the last."""
        return self.ledger.best if self.settings.patience else self.ledger.rounds

    def publish(self) -> None:
        """Write the result."""
        self.ledger.publish(self.chosen)

    def order(self, round_number: int, arrays: Arrays) -> RoundOrder:
        """Return what the sites are told in a round about the arrays they are sent."""
        return RoundOrder(
            round_number=round_number,
            steps=self.settings.steps,
            seed=self.settings.seed,
            training=self.settings.training(),
            network=self.network.config,
            manifest=manifest_digest(manifest_of(arrays)),
            start=arrays_digest(arrays),
        )

    def advance(self, updates: Mapping[str, Arrays], slices: Mapping[str, int]) -> None:
        """Make the next global model of the weights that the sites have trained."""
        settings, number = self.settings, self.ledger.rounds + 1
        strategy = STRATEGIES[settings.strategy]
        mean = strategy.average(updates, shares_of(slices, settings.max_share))
        state = advance(self.state, mean, strategy, settings.server_rate)
        self.state = follow(state, settings.server_ema, number)
        load_arrays(self.network, self.state.model)

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
        provenance = Provenance(
            codec_id=header.codec_id,
            encoder_id=header.encoder_id,
            latent_size=(header.height, header.width),
            slices=mean_slices(facts),
            spacing=mean_spacing(facts),
            steps=record.round * self.settings.steps,
            seed=self.settings.seed,
            rounds=record.round,
            sites=len({site for each in records for site in each.slices}),
            parent=self.parent,
            method=self.settings.method,
        )

        def save(folder: Path) -> None:
            save_package(folder, self.network, provenance)
            save_beside(folder / STATE, self.state)

        self.ledger.commit(record, save)


def open_job(settings: FederationSettings) -> Job:
    """Begin a job in its folder, or go on after its last finished round."""
    init = Path(settings.init) if settings.init else None
    network, package = start_network(settings.preset, init, settings.seed)
    parent = package.digest if package else ""
    ledger = Ledger.open(
        Path(settings.out),
        {**settings.identity(), "parent": parent, "network": asdict(network.config)},
    )
    if ledger.rounds:
        package = load_package(ledger.checkpoint(ledger.rounds))
        if package.digest != ledger.records[-1].digest:
            raise PackageError(
                f"the model of round {ledger.rounds} is not the one that rounds.jsonl "
                "names; restore the job's folder or begin in a new one"
            )
        network = package.network
    state = ServerState(arrays_of(network), {}, {})
    if ledger.rounds:
        path = ledger.checkpoint(ledger.rounds) / STATE
        state = read_beside(path, state.weights, ledger.records[-1].state)
    origin = package.provenance if package else None
    return Job(settings, ledger, network, state, origin, parent)
