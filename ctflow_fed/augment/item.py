"""What is read of an item of somebody's datalist."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.errors import ReportTableError

__all__ = ["label_vector"]


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
