"""Drawing what a plan asks for, whatever happens on the way."""

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tqdm import tqdm

from ctflow_fed.augment.card import write_card
from ctflow_fed.augment.planning import Plan
from ctflow_fed.augment.pool import Batch, LocalPool, Pool, RayPool, Worker
from ctflow_fed.augment.request import SynthRequest
from ctflow_fed.augment.room import FULL, Room
from ctflow_fed.augment.settings import GenerateSettings
from ctflow_fed.augment.shard import WHOLE, Shard
from ctflow_fed.augment.store import SynthStore
from ctflow_fed.errors import IncompleteError

__all__ = ["generate"]

NOT_TRIED = "not tried, because the run ended before"


def generate(
    plan: Plan,
    *,
    model: Path | str,
    out: Path | str,
    workers: int = 1,
    address: str | None = None,
    shard: str | None = None,
    settings: GenerateSettings | None = None,
) -> SynthStore:
    """Draw the volumes of a plan into the folder ``out``, and return it as a store.

    ``model`` is the folder of a model package, or ``"base"`` for the shipped one.
    ``workers`` Ray actors draw, on this machine or on the cluster of an ``address``;
    with 0 this process draws, without Ray. Only what ``out`` lacks is drawn, so the
    same call goes on where a killed one ended. A request that fails is tried once more,
    by itself. With a ``shard``, ``"3/16"`` say, only that part of the plan is drawn;
    other processes may draw the others into the same folder at the same time.

    Raises ``IncompleteError`` when some are still missing after that, when the disk has
    no room for them, and when another process fills the same part of ``out``;
    ``MismatchError`` when ``out`` is of another plan or generator.
    """
    from ctflow_fed.augment.worker import SynthWorker, load_sampler  # they need torch
    from ctflow_fed.model import package_folder

    part = WHOLE if shard is None else Shard.parse(shard)
    model, out, settings = (
        package_folder(model),
        Path(out),
        settings or GenerateSettings(),
    )
    pool: Pool = LocalPool() if workers == 0 else RayPool(workers, address)
    sampler, origin = load_sampler(model, settings)
    room = Room(out, sampler.image_size)
    del sampler  # the workers have theirs
    store = SynthStore.create(out, plan, origin)
    with store.runs.going_on(part):
        batches = part.part(_batches(plan.requests, settings.batch))
        filling = _Filling(
            store, room, pool, partial(SynthWorker, model, out, settings)
        )
        filling.fill(batches)
        filling.close(part)
    return store


@dataclass
class _Filling:
    """A run that fills a store: what it still lacks, and why."""

    store: SynthStore
    room: Room
    pool: Pool
    make_worker: Callable[[], Worker]
    lacking: set[SynthRequest] = field(default_factory=set)
    reasons: dict[str, str] = field(default_factory=dict)

    def fill(self, batches: Sequence[Batch]) -> None:
        """Draw what is lacking of batches; what fails is drawn again by itself."""
        asked = [request for batch in batches for request in batch]
        self.store.sweep(asked)
        self.lacking = set(self.store.lacking(asked))
        self.room.check(self.lacking)
        with _progress(len(asked), len(self.lacking)) as bar:
            for cut in (batches, [[request] for request in asked]):
                todo = [batch for batch in cut if not self.lacking.isdisjoint(batch)]
                if not todo or not self._draw(todo, bar):
                    return

    def _draw(self, batches: Sequence[Batch], bar: tqdm) -> bool:
        """Have batches drawn; tell whether there is room for more."""
        left, is_full = set(self.lacking), False
        with closing(self.pool.run(self.make_worker, batches)) as results:
            for batch, said in results:
                for request, reason in zip(batch, said, strict=True):
                    self.reasons[request.request_id] = reason
                    bar.update(request in left and not reason)
                left.difference_update(batch)
                failed = sum(map(bool, self.reasons.values()))
                bar.set_postfix(failed=failed, refused=len(self.store.refused.ids()))
                if is_full := FULL in said or not self.room.is_left(left):
                    break
        # Success is counted, not assumed.
        self.lacking = set(self.store.lacking(self.lacking))
        return not is_full

    def close(self, part: Shard) -> None:
        """Write down what there is and what failed."""
        sample_id = self.store.header.origin.sample_id
        failures = {
            sample_id(each): self.reasons.get(each.request_id, NOT_TRIED)
            for each in self.lacking
        }
        self.store.runs.write_failures(part, failures)
        if self.reasons or not self.store.stamps.list_is_current():
            self.store.write_manifest()
            write_card(self.store)
        if failures:
            raise IncompleteError(
                f"{len(failures)} of {self.store.header.planned} volumes could not be "
                f"drawn, {_told(failures.values())}; the same command tries them again"
            )


def _told(reasons: Iterable[str]) -> str:
    """Say why volumes are lacking."""
    if FULL in reasons:
        return "because the disk is full"
    return "for the reasons in failed.jsonl"


def _progress(planned: int, lacking: int) -> tqdm:
    done = planned - lacking
    return tqdm(
        total=planned, initial=done, desc="volumes", unit="volume", disable=None
    )


def _batches(requests: Collection[SynthRequest], size: int) -> list[Batch]:
    """Return the batches of a plan.

    All volumes of a batch are of one length. Batches are cut from the whole plan, not
    from a shard of it or from what is lacking, so that a volume has the same neighbours
    in every run.
    """
    by_length: dict[int, list[SynthRequest]] = {}
    for request in requests:
        by_length.setdefault(request.slices, []).append(request)
    return [
        same[at : at + size]
        for same in by_length.values()
        for at in range(0, len(same), size)
    ]
