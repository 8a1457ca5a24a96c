"""How volumes are drawn, apart from what is drawn."""

from dataclasses import dataclass
from pathlib import Path

from ctflow_fed.errors import SettingsError

__all__ = ["GenerateSettings"]

GATES = ("none", "any", "chest")
MOST_CANDIDATES = 64


@dataclass(frozen=True, kw_only=True)
class GenerateSettings:
    """The settings of `generate`.

    ``batch`` requests of equal length are drawn together, which pays on a GPU; batches
    of another size give voxels that differ by up to 1 HU. ``codec`` and ``encoder`` are
    the embedded ones, or folders of those that the model was trained with. The others
    are those of `ctflow_fed.sampling.SampleSettings`, which has its own where they are
    None.

    ``gate`` is the quality gate: ``any`` measures every volume and refuses what is no
    CT in HU, has a seam, a repeated slice, or drifts; ``chest`` refuses what shows no
    lungs as well. With ``candidates`` so many volumes are drawn for a request, each
    from a seed of its own, and the best is kept. ``copies`` is the private index of a
    site (`ctflow_fed.copies.CopyIndex`): what repeats one of its scans is refused.
    ``reader`` is one of `train_reader`: a volume in which it reads a finding less
    surely than in 90 % of the real scans with it is refused.
    Where volumes are streamed into a training, the workers wait while ``ahead`` volumes
    or more lie there unspent.
    """

    batch: int = 1
    steps: int | None = None
    solver: str | None = None
    plan: str | None = None
    clip_slices: int | None = None
    overlap: int | None = None
    guidance: float | None = None
    batch_clips: int | None = None
    precision: str | None = None
    codec: str = "haar"
    encoder: str = "hashing"
    gate: str = "none"
    candidates: int = 1
    copies: Path | None = None
    reader: Path | None = None
    ahead: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= 1024:
            raise SettingsError(f"a batch must have 1 to 1024 requests: {self.batch}")
        if self.gate not in GATES:
            raise SettingsError(f"a gate must be {', '.join(GATES)}; got another")
        if not 1 <= self.candidates <= MOST_CANDIDATES:
            raise SettingsError(
                f"1 to {MOST_CANDIDATES} volumes can be drawn for a request, got "
                f"{self.candidates}"
            )
        if self.ahead is not None and self.ahead < 1:
            raise SettingsError(f"volumes ahead must be 1 or more, got {self.ahead}")
        if self.gate == "none" and (self.candidates > 1 or self.copies or self.reader):
            raise SettingsError(
                "several candidates, an index of copies or a reader need a quality "
                "gate; take the gate any or chest"
            )
