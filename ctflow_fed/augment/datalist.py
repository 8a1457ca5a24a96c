"""Real and synthetic items in one list of dicts, as MONAI takes it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ctflow_fed.augment.item import harmonised, patient_of, synthetic_item
from ctflow_fed.augment.store import SynthStore
from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.errors import ReportTableError, SettingsError
from ctflow_fed.files import read_json, write_json
from ctflow_fed.seeds import derive_seed

__all__ = ["extend", "mix_weights", "read_datalist", "write_datalist"]


def extend(
    real_items: Sequence[Mapping[str, Any]],
    store: SynthStore,
    *,
    max_ratio: float | None = None,
) -> list[dict[str, Any]]:
    """Return the real items and the synthetic ones, all with the same keys.

    ``image`` (path, str), ``label`` (float32 [18], the order of `FINDINGS`), ``report``
    (str), ``synthetic`` (bool), ``sample_id`` (str). Real items need ``image`` and
    ``label``; a report that is missing is empty. A ``patient``, where a real item names
    one, is kept, and is the sample id of all that name none. Other keys are left out,
    because MONAI's collation wants the same keys on every item of a batch. A real item
    without a ``sample_id`` is given one that depends on its path alone. The
    items of an earlier `extend` stay and are not added twice, so several stores may
    follow one another.

    ``max_ratio`` bounds the synthetic items to so many times the real ones. Which stay
    is decided by their ids, which are hashes, so it is a fair and repeatable draw.
    """
    items = [harmonised(item) for item in real_items]
    present = {item["sample_id"] for item in items}
    records = [each for each in store.records() if each.sample_id not in present]
    if max_ratio is not None:
        records = records[: _bound(items, max_ratio)]
    for each in records:
        image, report = store.image(each.sample_id), store.report(each)
        items.append(synthetic_item(each.sample_id, image, each.labels, report))
    if any("patient" in item for item in items):
        items = [{"patient": item["sample_id"], **item} for item in items]
    return items


def mix_weights(items: Iterable[Mapping[str, Any]], ratio: float) -> list[float]:
    """Return weights for a ``WeightedRandomSampler``, one an item; they add up to 1.

    Drawn by them, synthetic items come ``ratio`` times as often as real ones in
    expectation, exactly, however many there are of each; within either kind all come
    equally often.
    """
    if not (math.isfinite(ratio) and ratio >= 0):
        raise SettingsError(f"a ratio must be 0 or more, got {ratio}")
    kinds = [bool(item["synthetic"]) for item in items]
    synthetic = sum(kinds)
    real = len(kinds) - synthetic
    if not real or (ratio and not synthetic):
        raise SettingsError(
            f"expected real and synthetic items to mix, got {real} and {synthetic}; "
            "make the list with augment.extend"
        )
    share = ratio / (1 + ratio)
    return [share / synthetic if kind else (1 - share) / real for kind in kinds]


def read_datalist(
    path: Path, parts: Sequence[str] = ("training",)
) -> list[dict[str, Any]]:
    """Read a datalist: a list of items, or an object with lists under some ``parts``.

    The paths of images are taken to be relative to the folder of the file.
    """
    try:
        items = read_json(path)
    except (OSError, ValueError, RecursionError):
        items = None
    if isinstance(items, dict):
        lists = [items[part] for part in parts if isinstance(items.get(part), list)]
        items = [item for each in lists for item in each] if lists else None
    if not isinstance(items, list) or not all(isinstance(one, dict) for one in items):
        raise ReportTableError(
            "expected a datalist, a JSON list of items or an object with one under "
            f"'{parts[-1]}', got another file; export it again"
        )
    return [
        {**item, "image": str(path.parent / item["image"])}
        if isinstance(item.get("image"), str)
        else item
        for item in items
    ]


def write_datalist(
    items: Sequence[Mapping[str, Any]], path: Path | str, *, folds: int = 5
) -> None:
    """Write a datalist in the form of the Decathlon, with the folds of Auto3DSeg.

    ``monai.data.load_decathlon_datalist(path, is_segmentation=False)`` reads it. Every
    real item has a ``fold``, of those of a ``patient`` the same; synthetic ones have
    none, so that Auto3DSeg's readers train on them in every fold and never validate on
    them. Paths are relative to the folder of the file where they lie below it.

    Raises ``SettingsError`` where there are fewer patients than folds.
    """
    path = Path(path)
    every = [harmonised(item) for item in items]
    fold_of = _folds(
        {patient_of(item) for item in every if not item["synthetic"]}, folds
    )
    training = [_entry(item, path.parent, fold_of) for item in every]
    value = {
        "description": "chest CT, in part synthetic: not for diagnostic use",
        "modality": {"0": "CT"},
        "findings": list(FINDINGS),
        "numTraining": len(training),
        "training": training,
    }
    write_json(path, value)


def _bound(items: Sequence[Mapping[str, Any]], max_ratio: float) -> int:
    """Return how many synthetic items may still be added."""
    if not (math.isfinite(max_ratio) and max_ratio >= 0):
        raise SettingsError("max_ratio must be 0 or more; leave it out for no bound")
    present = sum(item["synthetic"] is True for item in items)
    return max(0, math.floor(max_ratio * (len(items) - present)) - present)


def _folds(patients: set[str], folds: int) -> dict[str, int]:
    """Deal patients out to folds of equal size, in an order that repeats."""
    if not 2 <= folds <= len(patients):
        raise SettingsError(
            f"expected 2 folds or more and at most one a patient, got {folds} for "
            f"{len(patients)} patients"
        )
    order = sorted(patients, key=lambda patient: derive_seed("fold", patient))
    return {patient: place % folds for place, patient in enumerate(order)}


def _entry(
    item: Mapping[str, Any], folder: Path, fold_of: Mapping[str, int]
) -> dict[str, Any]:
    """Return a line of the datalist; it names no patient."""
    image = Path(item["image"]).absolute()
    base = folder.absolute()
    below = image.is_relative_to(base)
    entry = {
        "image": str(image.relative_to(base) if below else image),
        "label": [int(value > 0.5) for value in item["label"]],
        "report": item["report"],
        "synthetic": item["synthetic"],
        "sample_id": item["sample_id"],
    }
    return entry if item["synthetic"] else {**entry, "fold": fold_of[patient_of(item)]}
