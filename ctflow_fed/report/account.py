"""What a page is made from: the facts of a run, without any wording."""

from collections.abc import Mapping
from dataclasses import dataclass

from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.evaluation import UtilityResult

__all__ = [
    "Pair",
    "Picture",
    "RoundAccount",
    "RunAccount",
    "SiteAccount",
    "StageAccount",
    "SynthAccount",
]


@dataclass(frozen=True, kw_only=True)
class SiteAccount:
    """A hospital: its studies, its scanner and the share of them with each finding.

    ``role`` says what its studies are for.
    """

    name: str
    role: str
    scanner: str
    studies: int
    refused: int
    prevalence: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class RoundAccount:
    """A federated round: the loss of the global model before and after it."""

    number: int
    loss_before: float
    loss_after: float
    seconds: float
    megabytes: float


@dataclass(frozen=True, kw_only=True)
class SynthAccount:
    """The synthetic volumes: how many, what was asked of them, and who drew them."""

    volumes: int
    prevalence: Mapping[str, float]
    slices: int
    image_size: int
    parameters: int
    digest: str
    parent: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """A volume, the findings it is labelled with and its report.

    The last line of a report of several lines is its impression.
    """

    volume: CTVolume
    findings: tuple[str, ...]
    report: str

    @property
    def description(self) -> str:
        """What the report says before its impression; all of it where it has none."""
        first, _, last = self.report.strip().rpartition("\n")
        return first or last

    @property
    def impression(self) -> str:
        """What the report concludes, empty where it is a single line."""
        first, _, last = self.report.strip().rpartition("\n")
        return last if first else ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """A real and a synthetic volume that have ``finding`` in common."""

    finding: str
    real: Picture
    synthetic: Picture


@dataclass(frozen=True, kw_only=True)
class StageAccount:
    """A stage of the run and how long it took."""

    title: str
    seconds: float


@dataclass(frozen=True, kw_only=True, eq=False)
class RunAccount:
    """A whole run. ``sites`` has the hospitals of the federation first.

    ``resumed`` tells that the run was stopped and went on; its times are then those of
    finished stages only.
    """

    command: str
    version: str
    seed: int
    cores: int
    sites: tuple[SiteAccount, ...]
    rounds: tuple[RoundAccount, ...]
    steps: int
    synthetic: SynthAccount
    pairs: tuple[Pair, ...]
    utility: UtilityResult
    stages: tuple[StageAccount, ...]
    seconds: float
    peak_rss_mb: float
    resumed: bool
