"""The sizes of FMvT."""

from dataclasses import dataclass

from ctflow_fed.errors import SettingsError

__all__ = ["PRESETS", "FMvTConfig"]


@dataclass(frozen=True, kw_only=True)
class FMvTConfig:
    """The shape of an FMvT.

    ``released`` is the network of CTFlow as its weights were trained. It differs from
    a new one in that

    * it predicts the velocity, where a new one predicts what is left of it after the
      best guess for white noise (`ctflow_fed.model.fmvt.preconditioned`): at nearly
      pure noise that is the clean clip, which has far fewer degrees of freedom than a
      patch of noise (JiT, arXiv 2511.13720);
    * its attention within and along frames is reshaped without moving heads behind
      tokens;
    * it takes the features of t unscaled, which leaves most of them constant, where a
      new one multiplies t by 1000;
    * it scales every report token to length one, where a new one normalises the
      embedded tokens, so that attention can tell them apart from the first step on;
    * it attends along frames and to the report without a norm before.
    """

    layers: int
    features: int
    heads: int
    latent_channels: int = 16
    report_features: int = 768
    released: bool = False

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
