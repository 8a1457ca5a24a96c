"""Volumes for a training that begins while they are still being drawn.

The trainer takes what is ready and marks it as spent; the generator, if it was told how
far it may run ahead, waits until something is. So a set of any size passes through a
disk of any size.
"""

import time
from collections.abc import Iterator
from typing import Any

from ctflow_fed.augment.item import synthetic_item
from ctflow_fed.augment.record import SynthRecord
from ctflow_fed.augment.store import SynthStore
from ctflow_fed.errors import IncompleteError, SettingsError

__all__ = ["stream"]

PAUSE = 0.5  # seconds between two looks at the folder


def stream(
    store: SynthStore, *, keep: int | None = None, patience: float = 600.0
) -> Iterator[dict[str, Any]]:
    """Yield the items of a set, those of `extend`, each when its volume is ready.

    It ends when all of the plan was yielded or refused by the gate. With ``keep`` no
    more than so many volumes that were yielded stay on the disk: of older ones the
    voxels are removed, and the sidecar goes to ``spent/``. Keep as many as your loader
    reads ahead, and give `GenerateSettings.ahead` to the generator.

    Raises ``IncompleteError`` when no volume came for ``patience`` seconds while no run
    fills the set.
    """
    if keep is not None and keep < 1:
        raise SettingsError(f"a stream must keep 1 volume or more, got {keep}")
    held: list[SynthRecord] = []
    for record in _arriving(store, patience):
        yield synthetic_item(
            record.sample_id,
            store.image(record.sample_id),
            record.labels,
            store.report(record),
        )
        held.append(record)
        if keep is not None and len(held) >= keep:
            _spend(store, held.pop(0))


def _arriving(store: SynthStore, patience: float) -> Iterator[SynthRecord]:
    """Yield records as their volumes come, until the plan is through."""
    gone = store.spent.ids()
    for sample_id in gone:  # what a kill has left of them
        store.image(sample_id).unlink(missing_ok=True)
    seen, last = set(gone), time.monotonic()
    while True:
        fresh = [name for name in store.ids() if name not in seen and name in store]
        for sample_id in fresh:
            seen.add(sample_id)
            yield store.read(sample_id)
        if len(seen) + len(store.refused.ids()) >= store.header.planned:
            return
        if fresh or store.runs.live():
            last = time.monotonic()
        elif time.monotonic() - last > patience:
            raise IncompleteError(
                f"{store.header.planned - len(seen)} volumes of the plan are not there "
                "and nothing draws them; repeat the command that draws"
            )
        time.sleep(0.0 if fresh else PAUSE)


def _spend(store: SynthStore, record: SynthRecord) -> None:
    """Remove the voxels of a volume and remember that it was there."""
    spent = store.spent.sidecar(record.sample_id)
    spent.parent.mkdir(exist_ok=True)
    store.sidecar(record.sample_id).replace(spent)
    store.image(record.sample_id).unlink(missing_ok=True)
