"""What a drawn volume must be before it counts.

The numbers are written down whatever they say, and the seed of every volume that was
drawn for a request with them.
"""

import math
from collections.abc import Collection, Iterator, Mapping
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
from ctflow_fed.reader import Reader
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


def _merit(drawn: Drawn) -> tuple[bool, float, float]:
    """What passes is better, then what is read more surely, then what jumps less."""
    judged = next(each for each in drawn.candidates if each.seed == drawn.seed)
    numbers = judged.numbers
    return not judged.refusal, numbers.get("sureness", 0.0), -numbers["jump"]


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
        self.reader: Reader | None = None
        if settings.reader is not None:
            self.reader = Reader()
            self.reader.load(settings.reader)
            self.decisive["reader"] = sha256_of(settings.reader)

    def judge(
        self, volume: CTVolume, seed: int, findings: Collection[str] = ()
    ) -> Drawn:
        """Measure a volume that was drawn from a seed, and say why it is refused.

        ``findings`` are those that it was asked to show.
        """
        chest, run = check_chest(volume), continuity_of(volume)
        numbers = {**chest.numbers, **asdict(run), "mean_hu": float(volume.hu.mean())}
        refusals = [*_not_hounsfield(volume), *_not_continuous(run)]
        if self.index is not None:
            found = self.index.check(picture_of(volume))
            numbers |= {"likeness": found.likeness, "likeness_of_copies": found.alarm}
            refusals += _copied(found)
        if self.reader is not None:
            read = _read(self.reader, volume, findings)
            numbers |= read
            refusals += _not_read(read)
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


def _read(
    reader: Reader, volume: CTVolume, findings: Collection[str]
) -> dict[str, float]:
    """Return the probability of each finding that can be read.

    ``sureness`` is how far the logits of those asked for are above what 90 % of real
    scans with them have, for the least sure of them.
    """
    logits = reader.logits(volume)
    read = {f"reads {name}": 1 / (1 + math.exp(-logits[name])) for name in reader.known}
    above = [
        logits[n] - reader.known[n].threshold for n in reader.known if n in findings
    ]
    return {**read, "sureness": min(above)} if above else read


def _not_read(read: Mapping[str, float]) -> Iterator[str]:
    if read.get("sureness", 0.0) < 0:
        yield (
            "expected a finding to be read as surely as in real scans with it, got one "
            "that is not"
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
