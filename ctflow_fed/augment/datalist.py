"""Real and synthetic items in one list of dicts, as MONAI takes it."""

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ctflow_fed.augment.item import label_vector
from ctflow_fed.augment.record import SynthRecord
from ctflow_fed.augment.store import SynthStore
from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.errors import ReportTableError, SettingsError

__all__ = ["extend"]


def extend(
    real_items: Sequence[Mapping[str, Any]],
    store: SynthStore,
    *,
    max_ratio: float | None = None,
) -> list[dict[str, Any]]:
    """Return the real items and the synthetic ones, all with the same keys.

    ``image`` (path, str), ``label`` (float32 [18], the order of `FINDINGS`), ``report``
    (str), ``synthetic`` (bool), ``sample_id`` (str). Real items need ``image`` and
    ``label``; a report that is missing is empty; other keys are left out, because
    MONAI's collation wants the same keys on every item of a batch. A real item without
    a ``sample_id`` is given one that depends on its path alone. The
    items of an earlier `extend` stay and are not added twice, so several stores may
    follow one another.

    ``max_ratio`` bounds the synthetic items to so many times the real ones. Which stay
    is decided by their ids, which are hashes, so it is a fair and repeatable draw.
    """
    items = [_harmonised(item) for item in real_items]
    present = {item["sample_id"] for item in items}
    records = [each for each in store.records() if each.sample_id not in present]
    if max_ratio is not None:
        records = records[: _bound(items, max_ratio)]
    return items + [_item(record, store) for record in records]


def _bound(items: Sequence[Mapping[str, Any]], max_ratio: float) -> int:
    """Return how many synthetic items may still be added."""
    if not (math.isfinite(max_ratio) and max_ratio >= 0):
        raise SettingsError("max_ratio must be 0 or more; leave it out for no bound")
    present = sum(item["synthetic"] is True for item in items)
    return max(0, math.floor(max_ratio * (len(items) - present)) - present)


def _harmonised(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return a new item with the common keys."""
    if not isinstance(item.get("image"), str | os.PathLike):
        raise ReportTableError("every item needs an 'image', the path of one file")
    image = os.fspath(item["image"])
    path_id = hashlib.sha256(image.encode()).hexdigest()[:32]
    return {
        "image": image,
        "label": label_vector(item),
        "report": str(item.get("report") or ""),
        "synthetic": bool(item.get("synthetic", False)),
        "sample_id": str(item.get("sample_id") or path_id),
    }


def _item(record: SynthRecord, store: SynthStore) -> dict[str, Any]:
    return {
        "image": str(store.image(record.sample_id)),
        "label": np.array([record.labels[name] for name in FINDINGS], np.float32),
        "report": store.report(record),
        "synthetic": True,
        "sample_id": record.sample_id,
    }
