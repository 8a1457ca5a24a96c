"""How volumes are drawn, apart from what is drawn."""

from dataclasses import dataclass

from ctflow_fed.errors import SettingsError

__all__ = ["GenerateSettings"]


@dataclass(frozen=True, kw_only=True)
class GenerateSettings:
    """The settings of `generate`.

    ``batch`` requests of equal length are drawn together, which pays on a GPU; batches
    of another size give voxels that differ by up to 1 HU. ``codec`` and ``encoder`` are
    the embedded ones, or folders of those that the model was trained with. The others
    are those of `ctflow_fed.sampling.SampleSettings`, which has its own where they are
    None.
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

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= 1024:
            raise SettingsError(f"a batch must have 1 to 1024 requests: {self.batch}")
