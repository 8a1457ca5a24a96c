"""How large the demo is."""

from dataclasses import asdict, dataclass, field
from typing import Any

from ctflow_fed.errors import SettingsError
from ctflow_fed.evaluation import UtilitySettings
from ctflow_fed.files import digest_of
from ctflow_fed.sampling import SampleSettings

__all__ = ["DemoSettings"]


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """The size of the demo; the defaults fit 2 CPU cores and seven minutes.

    Every hospital of the federation has ``studies``; the researcher has ``real`` of
    their own to train a classifier on, and ``tested`` of a held-out hospital.
    ``synthetic`` volumes are drawn at most. ``init`` is a model package that the
    federation begins with, empty for a fresh network of size ``preset``.
    """

    seed: int = 0
    studies: int = 24
    real: int = 24
    tested: int = 60
    slices: int = 32
    image_size: int = 64
    init: str = ""
    preset: str = "tiny"
    rounds: int = 4
    steps: int = 12
    batch_clips: int = 8
    learning_rate: float = 1e-4
    synthetic: int = 48
    sample_steps: int = SampleSettings.steps
    utility: UtilitySettings = field(default_factory=UtilitySettings)

    def __post_init__(self) -> None:
        counts = (self.studies, self.real, self.tested, self.rounds, self.steps)
        if min(*counts, self.batch_clips, self.synthetic, self.sample_steps) < 1:
            raise SettingsError("every count of the demo must be at least 1")
        if self.slices < 16 or self.image_size < 16:
            raise SettingsError(
                "the volumes of the demo need at least 16 slices of 16 pixels a side, "
                f"got {self.slices} of {self.image_size}"
            )
        if self.seed < 0:
            raise SettingsError(f"the seed must not be negative, got {self.seed}")

    @property
    def identity(self) -> str:
        """A digest of the settings; a folder belongs to one.

        ``init`` is not in it: packages may move, and the federated job in the folder
        knows the one it began with by the digest of its weights.
        """
        values: dict[str, Any] = asdict(self)
        del values["init"]
        return digest_of(values)
