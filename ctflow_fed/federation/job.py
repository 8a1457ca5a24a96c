"""A federated job as the server holds it: its folder and the model so far."""

import shutil
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

from ctflow_fed.errors import MismatchError, PackageError, SettingsError
from ctflow_fed.federation.aggregate import shares_of
from ctflow_fed.federation.array_files import ArrayFile, filed, put_arrays, write_arrays
from ctflow_fed.federation.arrays import Arrays, Run, arrays_digest, runs_of, values_of
from ctflow_fed.federation.depot import Depot
from ctflow_fed.federation.ledger import ADAPTER, STATE, Ledger, written
from ctflow_fed.federation.order import RoundOrder
from ctflow_fed.federation.parcel import Change
from ctflow_fed.federation.part import AdapterPart, Part, part_of
from ctflow_fed.federation.payload import arrays_of, blank_network
from ctflow_fed.federation.preflight import (
    SiteFacts,
    agreed_header,
    mean_slices,
    mean_spacing,
)
from ctflow_fed.federation.round_record import RoundRecord
from ctflow_fed.federation.server_state import (
    StateWriter,
    beside,
    beside_digest,
    read_beside,
    save_beside,
    writing_state,
)
from ctflow_fed.federation.settings import FederationSettings
from ctflow_fed.federation.shards import fits_message
from ctflow_fed.federation.strategies import (
    STRATEGIES,
    ServerState,
    advance,
    follow,
    rounded,
)
from ctflow_fed.locks import locked
from ctflow_fed.model import Provenance, start_network
from ctflow_fed.model.package import read_provenance, write_package
from ctflow_fed.threads import each_ahead
from ctflow_fed.training import check_channels, check_origin
from ctflow_fed.training.adapters import save_adapter
from ctflow_fed.training.merge import Adapter

__all__ = ["Job", "open_job"]


NEXT = "next"
"""The state that a round has led to, until the round is committed."""

SHARDS_TAKEN = (
    "another job whose weights are too large for a message is played by this server, "
    "which has room for one at a time; run this one when that is done"
)


@dataclass
class Job:
    """A job between two rounds; ``state`` is what the server carries on.

    ``part`` is what of a network the job trains, ``merged`` are all weights of the
    network that the state has led to, and ``change`` is what leads to the state's
    weights from those before, as it is sent; ``state``, ``merged`` and ``change`` are
    new with `advance`. Arrays lie in files of the job's folder, and those on their way,
    where they are too large for a message, in ``depot``. ``origin`` is the provenance
    of the model that the state was read from, if any, ``parent`` the digest of the
    weights that the job began with.
    """

    settings: FederationSettings
    ledger: Ledger
    part: Part
    state: ServerState
    merged: Arrays
    depot: Depot
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
        return bool(spent) and left < self.settings.quorum

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
        return arrays_digest(self.merged)

    @property
    def state_digest(self) -> str:
        """The digest of what the package of the model does not hold of the state."""
        return beside_digest(self._beside)

    @property
    def _beside(self) -> Mapping[str, Arrays]:
        return beside(self.state, merged=isinstance(self.part, AdapterPart))

    def alone(self) -> AbstractContextManager[object]:
        """Keep other jobs from the places in which shards pass, where this needs any.

        Raises ``IncompleteError`` where another job has them.
        """
        if fits_message(self.part.manifest, "float32"):
            return nullcontext()
        return locked(self.depot.folder / "lock", SHARDS_TAKEN)

    def publish(self) -> None:
        """Write the result."""
        self.ledger.publish(self.chosen)
        self.depot.close()
        shutil.rmtree(self.ledger.folder / NEXT, ignore_errors=True)

    def order(self, round_number: int, arrays: Arrays, sites: int) -> RoundOrder:
        """Return what so many sites are told in a round about the arrays it is on."""
        return RoundOrder(
            round_number=round_number,
            steps=self.settings.steps,
            seed=self.settings.seed,
            training=self.settings.training(),
            network=self.part.config,
            manifest=self.part.signature,
            start=arrays_digest(arrays),
            job=self.ledger.job,
            sites=sites,
            adapter_rank=self.settings.adapter_rank,
            base=self.part.base_digest,
            precision=self.settings.precision,
            optimizer=self.settings.optimizer,
            privacy=self.settings.privacy(),
            secure=self.settings.secure_aggregation,
        )

    def advance(self, updates: Mapping[str, Arrays], slices: Mapping[str, int]) -> None:
        """Make the next global model of the weights that the sites have trained.

        All weights of its network are computed in `filing`, or when they are needed.
        """
        manifest, precision = self.part.manifest, self.settings.precision
        before, folder = self.state, self.ledger.folder / NEXT
        with written(), writing_state(folder, manifest) as writer:
            pieces = self._steps(updates, slices, writer)
            if precision == "float32":  # the weights themselves are sent
                deque(pieces, maxlen=0)
            else:
                cargo = self.depot.offer("change", pieces, manifest, precision)
                self.change = Change(arrays_digest(before.weights), cargo)
        self.state = writer.state
        self.merged = self.part.merged(self.state.model)

    @contextmanager
    def filing(self) -> Iterator[None]:
        """Write all weights of the network to a file while what is within is done."""

        def write() -> Arrays:
            with written():
                path = self.ledger.folder / NEXT / "model.safetensors"
                return filed(path, self.merged)

        with ThreadPoolExecutor(1) as hand:
            writing = hand.submit(write)
            yield
            self.merged = writing.result()

    def _steps(
        self,
        updates: Mapping[str, Arrays],
        slices: Mapping[str, int],
        writer: StateWriter,
    ) -> Iterator[tuple[str, bytes]]:
        """Write the next state run by run, and yield the change as it is sent."""
        settings, number = self.settings, self.ledger.rounds + 1
        strategy = STRATEGIES[settings.strategy]
        shares = shares_of(slices, settings.max_share)

        def step(run: Run) -> tuple[ServerState, list[bytes]]:
            before = self.state.only(run)
            sent = {s: {run.name: values_of(each, run)} for s, each in updates.items()}
            mean = strategy.average(sent, shares)
            state = advance(before, mean, strategy, settings.server_rate)
            state, change = rounded(before, state, settings.precision)
            return follow(state, settings.server_ema, number), change

        for run, (state, change) in each_ahead(step, runs_of(self.part.manifest)):
            writer.write(state)
            yield from ((run.name, data) for data in change)

    def check_sites(self, facts: Sequence[SiteFacts]) -> None:
        """Refuse stores that do not fit one another or the model."""
        header = agreed_header(facts)
        check_channels(blank_network(self.part.config), header)
        if self.origin is not None:
            check_origin(self.origin, header)
        size = (header.height, header.width)
        if self.origin and self.ledger.rounds and self.origin.latent_size != size:
            raise MismatchError(
                f"the job was begun with latents of {self.origin.latent_size}, the "
                f"sites have {size}; take the studies in with the image size of before"
            )

    def commit(self, record: RoundRecord, facts: Sequence[SiteFacts]) -> None:
        """Write a finished round: the package of its model, then the record."""
        self.depot.clear()
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

        self.ledger.commit(record, lambda folder: self.save(folder, provenance))

    def save(self, folder: Path, provenance: Provenance) -> None:
        """Write the package of the model into a folder, and the state beside it."""
        write_package(
            folder,
            blank_network(self.part.config),
            provenance,
            self.digest,
            lambda path: put_arrays(path, self.merged),
        )
        save_beside(folder / STATE, self._beside)
        if isinstance(self.part, AdapterPart):
            changes = self.part.changes(self.state.model)
            base, rank = self.part.base_digest, self.part.settings
            adapter = Adapter(rank, base, changes, provenance)
            save_adapter(folder / ADAPTER, adapter)

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


def open_job(settings: FederationSettings) -> Job:
    """Begin a job in its folder, or go on after its last finished round."""
    init = Path(settings.init) if settings.init else None
    network, package = start_network(settings.preset, init, settings.seed)
    parent = package.digest if package else ""
    identity = settings.identity()
    identity |= {"parent": parent, "network": asdict(network.config)}
    ledger = Ledger.open(Path(settings.out), identity)
    first: Arrays = {}
    if settings.adapter_rank or not ledger.rounds:
        path = ledger.folder / NEXT / "first.safetensors"
        with written():
            first = write_arrays(path, arrays_of(network))
    rank, private = settings.adapter_rank, settings.is_private
    part = part_of(network.config, first, rank, settings.seed, private=private)
    if settings.secure_aggregation and not fits_message(part.manifest, "float32"):
        raise SettingsError(
            "expected weights that go with a message with secure aggregation, got more "
            "than 64 MiB; train an adapter with adapter-rank"
        )
    state, origin = ServerState(part.first), package.provenance if package else None
    if ledger.rounds:
        state, origin = _last_round(ledger, merged=isinstance(part, AdapterPart))
    merged = part.merged(state.model)
    return Job(settings, ledger, part, state, merged, _depot(settings), origin, parent)


def _depot(settings: FederationSettings) -> Depot:
    """Return where shards pass: nginx's folder, or the job's own on one machine."""
    out = Path(settings.out)
    outside = Path(settings.nodes).parent if settings.nodes else out
    return Depot(outside / "shards", out / "arrived")


def _last_round(ledger: Ledger, *, merged: bool) -> tuple[ServerState, Provenance]:
    """Read what the last finished round has left."""
    folder, record = ledger.checkpoint(ledger.rounds), ledger.records[-1]
    provenance, _ = read_provenance(folder / "provenance.json")
    try:
        model = ArrayFile(folder / "model.safetensors")
        is_whole = model.digest == record.digest
    except (OSError, ValueError):
        is_whole = False
    if not is_whole:
        raise PackageError(
            f"the model of round {ledger.rounds} is not the one that rounds.jsonl "
            "names; restore the job's folder or begin in a new one"
        )
    held: Arrays = {} if merged else model
    return read_beside(folder / STATE, held, record.state), provenance
