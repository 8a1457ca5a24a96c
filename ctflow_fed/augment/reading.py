"""A reader of findings, trained on the items of a datalist."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from ctflow_fed.augment.item import harmonised, patient_of
from ctflow_fed.errors import MismatchError, SettingsError
from ctflow_fed.seeds import derive_seed

if TYPE_CHECKING:
    from ctflow_fed.shapes import HU

__all__ = ["train_reader"]

HELD_OUT = 4
"""One of so many patients is held out, to see what the reader can read."""


def train_reader(
    items: Sequence[Mapping[str, Any]],
    out: Path | str,
    *,
    steps: int = 700,
    seed: int = 0,
) -> dict[str, float]:
    """Train the gate's reader on real items, and write it to ``out``.

    Items are those of `extend`: ``image`` is a NIfTI file or a folder of DICOM. It
    returns the AUROC, on the patients that were held out, of the findings that it can
    read (0.8 or more; the others the gate does not ask for).

    Raises ``MismatchError`` for a synthetic item and ``SettingsError`` for fewer than
    eight patients.
    """
    from ctflow_fed.reader import Reader  # it needs torch

    every = [harmonised(item) for item in items]
    _refuse_synthetic(every)
    held_out = _held_out({patient_of(item) for item in every}, seed)
    volumes = [_read(item) for item in tqdm(every, "scans", disable=None)]
    labels = np.stack([item["label"] for item in every])
    apart = np.array([patient_of(item) in held_out for item in every])
    reader = Reader()
    reader.train(_chosen(volumes, ~apart), labels[~apart], steps)
    reader.calibrate(_chosen(volumes, apart), labels[apart])
    reader.save(Path(out))
    return {name: each.auroc for name, each in reader.known.items()}


def _refuse_synthetic(items: Sequence[Mapping[str, Any]]) -> None:
    from ctflow_fed.ct.synthetic import is_marked_synthetic

    if any(
        item["synthetic"] or is_marked_synthetic(Path(item["image"])) for item in items
    ):
        raise MismatchError(
            "a reader must be trained on real scans alone, got a synthetic one among "
            "them; leave it out"
        )


def _held_out(patients: set[str], seed: int) -> set[str]:
    """Choose the patients that are held out."""
    if len(patients) < 2 * HELD_OUT:
        raise SettingsError(
            f"expected scans of {2 * HELD_OUT} patients or more, got {len(patients)}; "
            "fewer do not tell what a reader can read"
        )
    order = sorted(patients, key=lambda name: derive_seed("reader", seed, name))
    return set(order[: len(order) // HELD_OUT])


def _read(item: Mapping[str, Any]) -> "HU":
    from ctflow_fed.ct.dicom import read_series
    from ctflow_fed.ct.nifti import read_nifti
    from ctflow_fed.reader import Reader

    path = Path(item["image"])
    return Reader.reduced(read_series(path) if path.is_dir() else read_nifti(path))


def _chosen(volumes: "Sequence[HU]", which: np.ndarray) -> "list[HU]":
    return [each for each, chosen in zip(volumes, which, strict=True) if chosen]
