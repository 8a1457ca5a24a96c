"""What a coordinator chooses for a federated job."""

import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ctflow_fed.errors import SettingsError
from ctflow_fed.federation.aggregate import federated_average
from ctflow_fed.federation.encoding import PRECISIONS
from ctflow_fed.federation.strategies import STRATEGIES
from ctflow_fed.model import PRESETS
from ctflow_fed.training import PrivacySettings, TrainSettings

__all__ = [
    "LARGEST_RANK",
    "OPTIMIZERS",
    "ConfigValue",
    "FederationSettings",
    "check_site_name",
]

ConfigValue = str | int | float | bool
"""What Flower carries in a run's configuration and in a message's record."""

OPTIMIZERS = ("fresh", "kept")
"""How a site's optimizer begins a round: anew, or as it ended the round before."""

NAMES = ("sites", "held-out")
"""Keys of the run config that hold the names of sites, with commas."""

LARGEST_RANK = 1024
LEAST_IN_SUM = 3  # a sum of two tells each of them what the other sent
SITE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def check_site_name(name: object) -> str:
    """Return the name of a site; one that is no plain word raises ``SettingsError``.

    Names go into file names, logs and model cards, so they must say nothing but who.
    """
    if not isinstance(name, str) or SITE_NAME.fullmatch(name) is None:
        raise SettingsError(
            "expected a site name of 1 to 64 letters, digits, _ and -, got something "
            "else; rename the site's folder, or set `site` in its node config"
        )
    return name


@dataclass(frozen=True, kw_only=True)
class FederationSettings:
    """A federated job.

    ``out`` is the job's folder on the server's host; ``sites`` are the names of the
    sites that take part; ``nodes`` is the folder of their public keys there, by which
    they are known, empty where they tell their names, as in the local simulation;
    ``init`` is a model package to begin with, empty for a fresh network of size
    ``preset``; ``method`` is that of `TrainSettings`, whatever trained the package;
    ``wait_seconds`` is how long missing sites are waited for at the start,
    ``round_seconds`` how long their answers are in every round.

    ``strategy`` is one of `STRATEGIES`, ``server_learning_rate`` that of its rule, 0
    for the strategy's own; ``server_ema`` is the decay of a moving average of the
    weights over the rounds, which then is the model, 0 for none. A round with fewer
    usable updates than ``min_sites`` is not averaged; no site has more than
    ``max_share`` of a mean.

    With ``adapter_rank`` above 0 the sites train a low-rank adapter of ``init`` and
    leave its weights as they are. ``precision`` is that of what travels,
    one of `PRECISIONS`; ``optimizer`` is ``fresh`` in every round, or ``kept`` by each
    site from round to round.

    With ``dp_epsilon`` above 0 each site trains its adapter by DP-SGD, patient by
    patient, until it has spent this much at ``dp_delta``; ``dp_noise`` and ``dp_clip``
    are those of `PrivacySettings`. Nothing else that depends on its patients leaves a
    site then: no loss and no count, so that all sites count the same.

    With ``secure_aggregation`` the server reads a mean of the sites' updates and none
    of them; ``threshold`` sites together take the masks off, 0 for the smallest number
    of more than half.

    After ``patience`` rounds without a lower loss the job ends with the model of its
    best round; with 0 it plays all rounds and keeps the last. The loss is that of all
    sites, or of those that are ``held_out``: these train nothing and only tell it.
    """

    out: str
    sites: tuple[str, ...]
    nodes: str = ""
    rounds: int = 10
    steps: int = 100
    preset: str = "tiny"
    init: str = ""
    method: str = TrainSettings.method
    batch_clips: int = TrainSettings.batch_clips
    learning_rate: float = TrainSettings.learning_rate
    proximal: float = TrainSettings.proximal
    strategy: str = "fedavg"
    server_learning_rate: float = 0.0
    server_ema: float = 0.0
    min_sites: int = 1
    max_share: float = 1.0
    patience: int = 0
    held_out: tuple[str, ...] = ()
    adapter_rank: int = 0
    precision: str = "float32"
    optimizer: str = "fresh"
    dp_epsilon: float = 0.0
    dp_delta: float = PrivacySettings.delta
    dp_noise: float = PrivacySettings.noise_multiplier
    dp_clip: float = PrivacySettings.clip
    secure_aggregation: bool = False
    threshold: int = 0
    seed: int = 0
    wait_seconds: float = 600.0
    round_seconds: float = 43200.0

    def __post_init__(self) -> None:
        if not self.out:
            raise SettingsError("expected the folder of the job as `out`, got nothing")
        if not self.sites or len(set(self.sites)) != len(self.sites):
            raise SettingsError(
                "expected at least one site and every name once; "
                "name the sites that take part"
            )
        for site in self.sites:
            check_site_name(site)
        object.__setattr__(self, "sites", tuple(sorted(self.sites)))
        object.__setattr__(self, "held_out", tuple(sorted(self.held_out)))
        _within("rounds", self.rounds, 1, 10**6)
        _within("steps", self.steps, 1, 10**6)
        _within("seed", self.seed, 0, 2**63 - 1)
        _within("wait-seconds", self.wait_seconds, 1, 10**7)
        _within("round-seconds", self.round_seconds, 1, 10**7)
        _check_word("preset", self.preset, PRESETS)
        self._check_server()
        self._check_travel()
        self._check_private()
        self._check_secure()
        self.training()

    @classmethod
    def from_run_config(cls, config: Mapping[str, Any]) -> "FederationSettings":
        """Read Flower's run config; keys are the fields with hyphens, all required.

        ``sites`` and ``held-out`` are one string each there, with commas.
        """
        kinds = {field.name.replace("_", "-"): field.type for field in fields(cls)}
        if set(config) != set(kinds):
            different = sorted(set(config) ^ set(kinds))
            raise SettingsError(
                f"the run config must have exactly our keys; look at: {different}"
            )
        values: dict[str, Any] = {
            key: _sites(config[key]) if key in NAMES else config[key] for key in kinds
        }
        for key, kind in kinds.items():
            if kind is float and type(values[key]) is int:
                values[key] = float(values[key])
            if isinstance(kind, type) and type(values[key]) is not kind:
                raise SettingsError(f"expected a {kind.__name__} as {key}")
        return cls(**{key.replace("-", "_"): value for key, value in values.items()})

    def to_run_config(self) -> dict[str, ConfigValue]:
        """Return what `from_run_config` reads."""
        values = {key.replace("_", "-"): value for key, value in asdict(self).items()}
        return {**values, **{key: ",".join(values[key]) for key in NAMES}}

    def training(self) -> TrainSettings:
        """Return how a site trains; a short round warms up in a quarter of it."""
        papers = self.method == "ctflow"
        return replace(
            TrainSettings.ctflow() if papers else TrainSettings(method=self.method),
            batch_clips=self.batch_clips,
            learning_rate=self.learning_rate,
            warmup_steps=min(TrainSettings.warmup_steps, self.steps // 4),
            proximal=self.proximal,
        )

    @property
    def is_private(self) -> bool:
        """Tell whether sites train privately."""
        return self.dp_epsilon != 0

    def privacy(self) -> PrivacySettings | None:
        """Return what each site promises its patients; None without a budget."""
        if not self.is_private:
            return None
        return PrivacySettings(
            epsilon=self.dp_epsilon,
            delta=self.dp_delta,
            noise_multiplier=self.dp_noise,
            clip=self.dp_clip,
        )

    @property
    def trainers(self) -> tuple[str, ...]:
        """The sites that train."""
        return tuple(site for site in self.sites if site not in self.held_out)

    @property
    def quorum(self) -> int:
        """How many usable updates a round needs; a secure sum is of three at least."""
        if not self.secure_aggregation:
            return self.min_sites
        return max(self.min_sites, self.threshold, LEAST_IN_SUM)

    @property
    def server_rate(self) -> float:
        """The learning rate of the strategy's rule: what was chosen, or its own."""
        return self.server_learning_rate or STRATEGIES[self.strategy].learning_rate

    def _check_server(self) -> None:
        """Refuse what the server cannot make of the answers."""
        _within("server-learning-rate", self.server_learning_rate, 0, 10)
        _within("server-ema", self.server_ema, 0, 0.9999)
        if not set(self.held_out) < set(self.sites):
            raise SettingsError(
                "expected some sites of the job as held-out, and others that train, "
                "got an unknown one or all; name fewer"
            )
        _within("min-sites", self.min_sites, 1, len(self.trainers))
        _within("max-share", self.max_share, 0.01, 1)
        _within("patience", self.patience, 0, 10**6)
        _check_word("strategy", self.strategy, STRATEGIES)
        if self.server_learning_rate and STRATEGIES[self.strategy].rule is None:
            ruled = [name for name, each in STRATEGIES.items() if each.rule]
            raise SettingsError(
                f"expected server-learning-rate with {', '.join(ruled)} only, got it "
                "with a strategy that takes no step; leave it out"
            )

    def _check_travel(self) -> None:
        """Refuse what cannot travel or be kept between the rounds."""
        _within("adapter-rank", self.adapter_rank, 0, LARGEST_RANK)
        _check_word("precision", self.precision, PRECISIONS)
        _check_word("optimizer", self.optimizer, OPTIMIZERS)
        if self.adapter_rank and not self.init:
            raise SettingsError(
                "expected the package of a trained model as init where an adapter is "
                "trained, got none; a fresh network has nothing to adapt"
            )
        if self.server_ema and self.precision != "float32":
            raise SettingsError(
                "expected server-ema with precision float32 only, for sites hold what "
                "was rounded and no average of it; leave one of them out"
            )

    def _check_private(self) -> None:
        """Refuse what a private job cannot have."""
        if self.privacy() is None:  # out of range it raises
            self._check_no_privacy()
            return
        if not self.adapter_rank:
            raise SettingsError(
                "expected an adapter to be trained privately, because noise grows with "
                "the number of weights, got none; give its rank as adapter-rank"
            )
        if self.patience:
            raise SettingsError(
                "expected no patience in a private job, for no site tells a loss; "
                "leave it out"
            )
        if self.held_out:
            raise SettingsError(
                "expected no site to be held out of a private job, in which none tells "
                "a loss, got some; leave them out"
            )
        if self.optimizer == "kept":
            raise SettingsError(
                "expected a fresh optimizer in a private job, got one that is kept; "
                "leave it out"
            )

    def _check_secure(self) -> None:
        """Refuse what cannot be done with a sum alone."""
        sites, least = len(self.trainers), len(self.trainers) // 2 + 1
        if not self.secure_aggregation:
            _within("threshold without secure-aggregation", self.threshold, 0, 0)
            return
        if sites < LEAST_IN_SUM:
            raise SettingsError(
                f"expected at least three sites for secure aggregation, got {sites}; "
                "a sum of two tells each of them what the other sent"
            )
        _within("threshold", self.threshold or least, least, sites)
        if STRATEGIES[self.strategy].average is not federated_average:
            raise SettingsError(
                "expected a strategy that needs a mean only with secure aggregation, "
                f"got {self.strategy}, which compares updates; take another one"
            )
        if self.precision != "float32":
            raise SettingsError(
                "expected precision float32 with secure aggregation, whose masked "
                "updates have 32 bits a value; leave precision out"
            )

    def _check_no_privacy(self) -> None:
        """Refuse noise that would not be added: without a budget there is none."""
        chosen = (self.dp_delta, self.dp_noise, self.dp_clip)
        usual = PrivacySettings(epsilon=1.0)
        if chosen != (usual.delta, usual.noise_multiplier, usual.clip):
            raise SettingsError(
                "expected a budget with which to train privately, got none; "
                "give it as dp-epsilon"
            )

    def identity(self) -> dict[str, Any]:
        """Return what makes it this job: all that its result depends on.

        The folder may move and the patience may change; the package to begin with is
        known by the digest of its weights and its size by its network, which the caller
        adds.
        """
        loose = {"out", "nodes", "init", "preset", "wait_seconds", "round_seconds"}
        values = {k: v for k, v in asdict(self).items() if k not in loose}
        return {**values, "sites": list(self.sites), "held_out": list(self.held_out)}


def _sites(value: object) -> tuple[str, ...]:
    if not isinstance(value, str):
        raise SettingsError("expected the sites as one string with commas")
    return tuple(name.strip() for name in value.split(",") if name.strip())


def _check_word(name: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise SettingsError(
            f"expected one of {', '.join(known)} as {name}, got another word"
        )


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise SettingsError(f"expected {name} between {low:g} and {high:g}")
