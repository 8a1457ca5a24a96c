"""A federated job as the server holds it: its folder and the model so far."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ctflow_fed.errors import MismatchError, PackageError
from ctflow_fed.federation.ledger import Ledger, RoundRecord
from ctflow_fed.federation.payload import arrays_of, manifest_digest, manifest_of
from ctflow_fed.federation.preflight import (
    SiteFacts,
    agreed_header,
    mean_slices,
    mean_spacing,
)
from ctflow_fed.federation.settings import FederationSettings, RoundOrder
from ctflow_fed.model import (
    FMvT,
    Provenance,
    load_package,
    save_package,
    start_network,
)
from ctflow_fed.training import check_channels, check_origin

__all__ = ["Job", "open_job"]


@dataclass(frozen=True)
class Job:
    """A job between two rounds; ``network`` is the global model after ``ledger``.

    ``origin`` is the provenance of the model that ``network`` was read from, if any;
    ``parent`` is the digest of the weights that the job began with.
    """

    settings: FederationSettings
    ledger: Ledger
    network: FMvT
    origin: Provenance | None
    parent: str

    @property
    def is_finished(self) -> bool:
        """Tell whether nothing is left to do."""
        return self.ledger.is_finished(self.settings.rounds)

    def order(self, round_number: int) -> RoundOrder:
        """Return what the sites are told in a round."""
        return RoundOrder(
            round_number=round_number,
            steps=self.settings.steps,
            seed=self.settings.seed,
            training=self.settings.training(),
            network=self.network.config,
            manifest=manifest_digest(manifest_of(arrays_of(self.network))),
        )

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
        self.ledger.commit(
            record, lambda folder: save_package(folder, self.network, provenance)
        )


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
    origin = package.provenance if package else None
    return Job(settings, ledger, network, origin, parent)
