"""An item of a datalist: what is read of somebody's, and what all of ours hold."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.errors import ReportTableError

__all__ = ["harmonised", "label_vector", "patient_of", "synthetic_item"]


def label_vector(item: Mapping[str, Any]) -> np.ndarray:
    """Return the label of an item as a new float32 [18], in the order of `FINDINGS`."""
    try:
        label = np.array(item["label"], np.float32)
    except (KeyError, TypeError, ValueError):
        label = np.empty(0, np.float32)
    if label.shape != (len(FINDINGS),):
        raise ReportTableError(
            f"every item needs a 'label' of {len(FINDINGS)} numbers, in the order of "
            "ctflow_fed.ct.labels.FINDINGS"
        )
    return label


def harmonised(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return a new item with the keys that all have; see `datalist.extend`."""
    if not isinstance(item.get("image"), str | os.PathLike):
        raise ReportTableError(
            "every item needs an 'image', the path of one file that is not loaded yet"
        )
    image = os.fspath(item["image"])
    path_id = hashlib.sha256(image.encode()).hexdigest()[:32]
    known = {
        "image": image,
        "label": label_vector(item),
        "report": str(item.get("report") or ""),
        "synthetic": bool(item.get("synthetic", False)),
        "sample_id": str(item.get("sample_id") or path_id),
    }
    patient = item.get("patient")
    return known if patient is None else {**known, "patient": str(patient)}


def patient_of(item: Mapping[str, Any]) -> str:
    """Return whose a harmonised item is; each is its own where nobody says."""
    return str(item.get("patient", item["sample_id"]))


def synthetic_item(
    sample_id: str, image: Path, labels: Mapping[str, int], report: str
) -> dict[str, Any]:
    """Return the item of a synthetic volume."""
    return {
        "image": str(image),
        "label": np.array([labels[name] for name in FINDINGS], np.float32),
        "report": report,
        "synthetic": True,
        "sample_id": sample_id,
    }
