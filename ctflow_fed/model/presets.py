"""The sizes of FMvT."""

from dataclasses import dataclass

from ctflow_fed.errors import SettingsError

__all__ = ["PRESETS", "FMvTConfig"]


@dataclass(frozen=True, kw_only=True)
class FMvTConfig:
    """The shape of an FMvT.

    The last four settings tell new models from the released one. ``predicts_data``
    lets the network guess the clean clip, from which its velocity follows: a patch of
    noise has 128 numbers, more than a narrow network can carry, and clean patches have
    far fewer (JiT, arXiv 2511.13720). The others are quirks of the released network:
    ``scrambled_heads`` reshapes the attention result without moving heads behind
    tokens, ``timestep_scale`` multiplies t before its features are taken (released: 1,
    which leaves most features constant), and ``unit_report`` scales every report token
    to length one.
    """

    layers: int
    features: int
    heads: int
    latent_channels: int = 16
    report_features: int = 768
    predicts_data: bool = True
    scrambled_heads: bool = False
    timestep_scale: float = 1000.0
    unit_report: bool = False

    def __post_init__(self) -> None:
        sizes = (self.layers, self.features, self.heads, self.latent_channels)
        if min(*sizes, self.report_features) < 1 or max(sizes) > 16384:
            raise SettingsError("the sizes of a network must lie between 1 and 16384")
        if self.features % (4 * self.heads):
            raise SettingsError(
                f"features ({self.features}) must be a multiple of "
                f"4 x heads ({self.heads})"
            )


PRESETS = {
    #                          layers     features      heads        parameters
    "nano": FMvTConfig(layers=4, features=96, heads=4),  # 0.9 M, tests
    "tiny": FMvTConfig(layers=6, features=144, heads=6),  # 2.7 M, a demo on a CPU
    "S": FMvTConfig(layers=12, features=384, heads=6),  # 36 M
    "B": FMvTConfig(layers=12, features=768, heads=12),  # 146 M
    "L": FMvTConfig(layers=24, features=1024, heads=16),  # 512 M, the released size
}
"""Named configurations; S, B and L are the sizes of the paper."""
