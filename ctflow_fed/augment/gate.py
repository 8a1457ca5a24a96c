"""What a drawn volume must be before it counts.

The numbers are written down whatever they say, and the seed of every volume that was
drawn for a request with them.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

import numpy as np

from ctflow_fed.augment.record import Candidate, Setting
from ctflow_fed.augment.settings import GenerateSettings
from ctflow_fed.copies import CopyCheck, CopyIndex, picture_of
from ctflow_fed.ct.chest import check_chest
from ctflow_fed.ct.continuity import Continuity, continuity_of
from ctflow_fed.ct.volume import CTVolume, refuse_other_than_hounsfield
from ctflow_fed.errors import VolumeError
from ctflow_fed.files import sha256_of
from ctflow_fed.seeds import derive_seed

__all__ = ["Drawn", "Gate", "candidate_seed"]

HIGHEST_JUMP = 4.0
LOWEST_FREEZE = 0.1
"""Against the median difference of slices; real scans have 1.3 to 1.6 and 0.4 to 0.6,
phantoms no more than 2.5."""

HIGHEST_GRAIN = 3.0
"""The noise of one end over that of the other; real scans have up to 1.3."""


@dataclass(frozen=True)
class Drawn:
    """The volume that is kept of a request, its seed, and what was drawn besides."""

    volume: CTVolume
    seed: int
    candidates: tuple[Candidate, ...] = ()

    @property
    def refusal(self) -> str:
        """Why the volume must not be used, "" where it may."""
        return "".join(
            each.refusal for each in self.candidates if each.seed == self.seed
        )

    def or_better(self, other: "Drawn") -> "Drawn":
        """Return the better of both, the earlier of equals, with all candidates."""
        better = other if _merit(other) > _merit(self) else self
        return replace(better, candidates=self.candidates + other.candidates)


def _merit(drawn: Drawn) -> tuple[bool, float]:
    """What passes is better than what does not, then what jumps less."""
    judged = next(each for each in drawn.candidates if each.seed == drawn.seed)
    return not judged.refusal, -judged.numbers["jump"]


class Gate:
    """Judges volumes by settings; `GenerateSettings` says what each asks for.

    ``decisive`` are those that change which volume is kept.
    """

    def __init__(self, settings: GenerateSettings) -> None:
        self.region = settings.gate
        self.decisive: dict[str, Setting] = {
            "gate": settings.gate,
            "candidates": settings.candidates,
        }
        self.index: CopyIndex | None = None
        if settings.copies is not None:
            self.index = CopyIndex.load(settings.copies)
            self.decisive["copies"] = sha256_of(settings.copies)

    def judge(self, volume: CTVolume, seed: int) -> Drawn:
        """Measure a volume that was drawn from a seed, and say why it is refused."""
        chest, run = check_chest(volume), continuity_of(volume)
        numbers = {**chest.numbers, **asdict(run), "mean_hu": float(volume.hu.mean())}
        refusals = [*_not_hounsfield(volume), *_not_continuous(run)]
        if self.index is not None:
            found = self.index.check(picture_of(volume))
            numbers |= {"likeness": found.likeness, "likeness_of_copies": found.alarm}
            refusals += _copied(found)
        if self.region == "chest":
            refusals.append(chest.refusal)
        rounded = {name: round(value, 4) for name, value in numbers.items()}
        refusal = next(filter(None, refusals), "").partition(";")[0]
        return Drawn(volume, seed, (Candidate(seed, rounded, refusal),))


def candidate_seed(seed: int, number: int) -> int:
    """Return the seed of a request's ``number``-th volume; the first is its own."""
    return seed if number == 0 else derive_seed(seed, "candidate", number)


def _copied(found: CopyCheck) -> Iterator[str]:
    if found.is_copy:
        yield (
            f"expected no copy of a scan, got a likeness of {found.likeness:.2f} where "
            f"patients have up to {found.alarm:.2f}"
        )


def _not_hounsfield(volume: CTVolume) -> Iterator[str]:
    try:
        refuse_other_than_hounsfield(volume)
    except VolumeError as error:
        yield str(error)
    if np.ptp(volume.hu) < 100:
        yield "expected tissues, got a volume that is all of one HU"


def _not_continuous(run: Continuity) -> Iterator[str]:
    if run.jump > HIGHEST_JUMP:
        yield f"expected no seam, got a slice that differs {run.jump:.1f} times as much"
    if run.freeze < LOWEST_FREEZE:
        yield f"expected no repeated slice, got a difference of {run.freeze:.2f} times"
    if not 1 / HIGHEST_GRAIN <= run.grain <= HIGHEST_GRAIN:
        yield f"expected even noise, got {run.grain:.1f} times from end to end"
