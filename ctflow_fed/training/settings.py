"""The settings of training."""

from dataclasses import dataclass

from ctflow_fed.errors import SettingsError
from ctflow_fed.model.package import METHODS

__all__ = ["METHODS", "PrivacySettings", "TrainSettings"]


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How to train.

    ``method`` is ``known`` (clips with known slices, see `ctflow_fed.clips`) or
    ``ctflow``, the paper's: the clip below as context, uniform times, whole reports,
    ``start_boost`` the share of clips that are the first of their volume.

    ``batch_clips`` are clips of 16 slices; a step takes fewer of those that are longer,
    up to ``max_frames``. ``context_noise`` is the share of noise in the context (the
    largest share for ``known``), so that the network does not rely on a context that
    sampling cannot give. ``sentence_dropout`` is the share of clips that are told only
    some sentences of their report, so that a report of one sentence is understood as
    well as a whole one, ``report_dropout`` of those that are told none, for guidance.
    ``time_shift`` moves training towards noise (`ctflow_fed.flow.shift_for`);
    ``proximal`` is the mu of FedProx (arXiv 1812.06127), zero for FedAvg.
    ``checkpointing`` computes activations twice to keep fewer of them.
    """

    method: str = "known"
    batch_clips: int = 8
    max_frames: int = 64
    learning_rate: float = 1e-3
    warmup_steps: int = 20
    weight_decay: float = 1e-2
    gradient_clip: float = 1.0
    ema_decay: float = 0.999
    start_boost: float = 0.5
    context_noise: float = 0.7
    sentence_dropout: float = 0.3
    report_dropout: float = 0.1
    time_shift: float = 5.0
    proximal: float = 0.0
    checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise SettingsError(f"method must be one of {', '.join(METHODS)}")
        _within("batch_clips", self.batch_clips, 1, 4096)
        _within("max_frames", self.max_frames, 16, 1024)
        _within("learning_rate", self.learning_rate, 0, 1)
        _within("warmup_steps", self.warmup_steps, 0, 10**9)
        _within("weight_decay", self.weight_decay, 0, 1)
        _within("gradient_clip", self.gradient_clip, 1e-9, 1e9)
        _within("ema_decay", self.ema_decay, 0, 1)
        _within("start_boost", self.start_boost, 0, 1)
        _within("context_noise", self.context_noise, 0, 1)
        _within("sentence_dropout", self.sentence_dropout, 0, 1)
        _within("report_dropout", self.report_dropout, 0, 1)
        _within("time_shift", self.time_shift, 1, 1000)
        _within("proximal", self.proximal, 0, 1e6)

    @classmethod
    def ctflow(cls, **changes: float) -> "TrainSettings":
        """Return the settings of the paper's method, some of them changed."""
        known = {"context_noise": 0.05, "time_shift": 1.0}
        return cls(method="ctflow", **{**known, **changes})  # type: ignore[arg-type]  # each float is of a float field


@dataclass(frozen=True, kw_only=True)
class PrivacySettings:
    """What a site promises its patients: DP-SGD, patient by patient.

    Whoever sees the trained weights can hardly tell whether any one patient was among
    those trained on: adding or removing all studies of a patient makes no outcome more
    than ``e^epsilon`` times as likely, but for a chance of ``delta``. ``epsilon`` is
    the budget; training ends before it would spend more. ``clip`` is the largest L2
    norm of what one patient adds to a step; the noise on the sum has
    ``noise_multiplier`` times that as its standard deviation.
    """

    epsilon: float
    delta: float = 1e-5
    noise_multiplier: float = 1.0
    clip: float = 1.0

    def __post_init__(self) -> None:
        _within("epsilon", self.epsilon, 1e-3, 1e3)
        _within("delta", self.delta, 1e-15, 1e-2)
        _within("noise_multiplier", self.noise_multiplier, 0.1, 1e3)
        _within("clip", self.clip, 1e-6, 1e6)


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise SettingsError(f"{name} must lie between {low:g} and {high:g}")
