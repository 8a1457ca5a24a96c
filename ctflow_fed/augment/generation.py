"""Drawing what a plan asks for, whatever happens on the way."""

from functools import partial
from pathlib import Path

from tqdm import tqdm

from ctflow_fed.augment.planning import Plan
from ctflow_fed.augment.pool import Batch, LocalPool, Pool, RayPool
from ctflow_fed.augment.request import SynthRequest
from ctflow_fed.augment.settings import GenerateSettings
from ctflow_fed.augment.store import SynthStore
from ctflow_fed.errors import IncompleteError

__all__ = ["generate"]

NOT_TRIED = "not tried, because too many workers were lost"


def generate(
    plan: Plan,
    *,
    model: Path | str,
    out: Path | str,
    workers: int = 1,
    address: str | None = None,
    settings: GenerateSettings | None = None,
) -> SynthStore:
    """Draw the volumes of a plan into the folder ``out``, and return it as a store.

    ``model`` is the folder of a model package, or ``"base"`` for the shipped one.
    ``workers`` Ray actors draw, on this machine or on the cluster of an ``address``;
    with 0 this process draws, without Ray. Only what ``out`` lacks is drawn, so the
    same call goes on where a killed one ended. A request that fails is tried once more,
    by itself.

    Raises ``IncompleteError`` when some are still missing after that, and
    ``MismatchError`` when ``out`` is of another plan or generator.
    """
    from ctflow_fed.augment.worker import SynthWorker, load_sampler  # they need torch
    from ctflow_fed.model import package_folder

    model, out, settings = (
        package_folder(model),
        Path(out),
        settings or GenerateSettings(),
    )
    pool: Pool = LocalPool() if workers == 0 else RayPool(workers, address)
    origin = load_sampler(model, settings)[1]
    store = SynthStore.create(out, plan, origin)
    store.sweep()
    make_worker = partial(SynthWorker, model, out, settings)
    lacking, reasons = set(store.missing(plan)), {}
    with _progress(len(plan), len(lacking)) as bar:
        for size in (settings.batch, 1) if lacking else ():
            batches = _batches(plan, lacking, size)
            for batch, said in pool.run(make_worker, batches):
                for request, reason in zip(batch, said, strict=True):
                    reasons[request.request_id] = reason
                    bar.update(request in lacking and not reason)
            lacking = set(store.missing(plan))  # success is counted, not assumed
            if not lacking:
                break
    _close(store, lacking, reasons)
    return store


def _progress(planned: int, lacking: int) -> tqdm:
    done = planned - lacking
    return tqdm(
        total=planned, initial=done, desc="volumes", unit="volume", disable=None
    )


def _batches(plan: Plan, lacking: set[SynthRequest], size: int) -> list[Batch]:
    """Return the batches of a plan from which something is lacking.

    All volumes of a batch are of one length. Batches are cut from the whole plan, not
    from what is lacking, so that a volume that is drawn after an interruption has the
    neighbours that it would have had.
    """
    by_length: dict[int, list[SynthRequest]] = {}
    for request in plan.requests:
        by_length.setdefault(request.slices, []).append(request)
    cut = [
        same[at : at + size]
        for same in by_length.values()
        for at in range(0, len(same), size)
    ]
    return [batch for batch in cut if not lacking.isdisjoint(batch)]


def _close(
    store: SynthStore, lacking: set[SynthRequest], reasons: dict[str, str]
) -> None:
    """Write down what there is and what failed."""
    store.sweep()
    store.write_manifest()
    sample_id = store.header.origin.sample_id
    store.write_failures(
        {sample_id(each): reasons.get(each.request_id, NOT_TRIED) for each in lacking}
    )
    if lacking:
        raise IncompleteError(
            f"{len(lacking)} of {store.header.planned} volumes could not be drawn, for "
            "the reasons in failed.jsonl; the same command tries them again"
        )
