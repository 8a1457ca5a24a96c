"""What a site keeps of its scans so that a copy of one is known when it is seen.

The index is a safetensors file that only its user may read:

    pictures    float16 [scans, 40, 40, 40]
    own         float32 [scans]: how alike each is to the nearest of another patient

It holds pictures of patients, so it stays at the site. What leaves it are a few numbers
on each synthetic volume: how alike it is to the nearest scans, and what is too much.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor

from ctflow_fed.copies.picture import (
    SIDE,
    Likeness,
    Picture,
    Pictures,
    likeness,
)
from ctflow_fed.copies.signature import Signatures, nearest_of, signatures_of
from ctflow_fed.errors import SettingsError, StoreError
from ctflow_fed.files import write_private

__all__ = ["DEVIATIONS", "CopyCheck", "CopyIndex"]

CANDIDATES = 16
"""Scans that a volume is compared with cell by cell."""

LEAST_PATIENTS = 8
"""With fewer patients nobody knows how alike two of them are."""

DEVIATIONS = 3.0
"""Above the mean of what the nearest of other patients are, an alarm is raised."""


@dataclass(frozen=True)
class CopyCheck:
    """How alike a volume is to the nearest scan, and above what it is a copy.

    ``others`` is how alike it is to the next candidates, on average, and ``own`` how
    alike the nearest scan is to the nearest of other patients.
    """

    likeness: float
    others: float
    own: float
    alarm: float

    @property
    def is_copy(self) -> bool:
        """Whether it is more alike to a scan than two patients are to each other."""
        return self.likeness > self.alarm


class CopyIndex:
    """The scans of a site, ready to be compared with.

    Made with `CopyIndex.build` or `CopyIndex.load`.
    """

    def __init__(self, pictures: Pictures, own: Likeness) -> None:
        self.pictures = pictures
        self.own = own

    @classmethod
    def build(cls, pictures: Pictures, patients: Sequence[str]) -> "CopyIndex":
        """Make the index of scans; ``patients`` says whose each of them is.

        Raises ``SettingsError`` where they are of too few patients.
        """
        if len(set(patients)) < LEAST_PATIENTS:
            raise SettingsError(
                f"expected scans of {LEAST_PATIENTS} patients or more, got "
                f"{len(set(patients))}; fewer do not tell how alike two patients are"
            )
        pictures = pictures.half().float()  # as they are once they were saved
        return cls(pictures, _nearest_strangers(pictures, patients))

    @classmethod
    def load(cls, path: Path) -> "CopyIndex":
        """Read an index; what is none raises ``StoreError``."""
        try:
            found = load_file(path)
        except (OSError, SafetensorError):
            found = {}
        if not _is_index(found):
            raise StoreError(
                "expected an index of a site's scans, found a file that is none or is "
                "damaged; make it again with: ctflow evaluate index"
            )
        return cls(found["pictures"].float(), found["own"])

    def save(self, path: Path) -> None:
        """Write the index; its user alone may read it."""
        parts = {"pictures": self.pictures.half(), "own": self.own}
        write_private(path, to_bytes(parts))

    @cached_property
    def alarm(self) -> float:
        """What a volume must not exceed in likeness to any scan.

        That is 3 standard deviations above the mean of ``own``, in units of Fisher's
        transformation, in which correlations are as good as normal.
        """
        usual = self.own.clamp(-0.999, 0.999).atanh()
        return float((usual.mean() + DEVIATIONS * usual.std()).tanh())

    @cached_property
    def signatures(self) -> Signatures:
        """Those of all scans."""
        return signatures_of(self.pictures)

    def check(self, picture: Picture) -> CopyCheck:
        """Compare the picture of a volume with the scans that it resembles most."""
        signature = signatures_of(picture[None])[0]
        nearest = nearest_of(signature, self.signatures, CANDIDATES)
        found = likeness(picture, self.pictures[nearest])
        first = int(found.argmax())
        others = found[torch.arange(len(found)) != first]
        return CopyCheck(
            likeness=float(found[first]),
            others=float(others.mean()),
            own=float(self.own[nearest[first]]),
            alarm=self.alarm,
        )


def _nearest_strangers(pictures: Pictures, patients: Sequence[str]) -> Likeness:
    """Return how alike each scan is to the nearest candidate of another patient."""
    signatures = signatures_of(pictures)
    found = []
    for place, own in enumerate(patients):
        others = torch.tensor([i for i, name in enumerate(patients) if name != own])
        nearest = nearest_of(signatures[place], signatures[others], CANDIDATES)
        found.append(likeness(pictures[place], pictures[others[nearest]]).max())
    return torch.stack(found)


def _is_index(found: dict[str, Tensor]) -> bool:
    """Tell whether tensors of a file are those of an index, and finite."""
    if set(found) != {"pictures", "own"}:
        return False
    pictures, own = found["pictures"], found["own"]
    shapes = (len(pictures) if pictures.ndim else 0, SIDE, SIDE, SIDE), (len(pictures),)
    fits = (pictures.shape, own.shape) == shapes and len(own) >= LEAST_PATIENTS
    kinds = (pictures.dtype, own.dtype) == (torch.float16, torch.float32)
    return fits and kinds and bool(pictures.isfinite().all() and own.isfinite().all())
