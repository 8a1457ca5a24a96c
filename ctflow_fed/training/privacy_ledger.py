"""What a site has spent of its patients' privacy, written down before it is spent.

The ledger is a file, ``privacy.json``:

    format        "ctflow-fed privacy 1"
    events        noise multiplier, sampling rate and number of the noisy steps taken
    delta         that of the promise
    epsilon       what the events come to at this delta

Steps of all rounds and of all resumptions add up. The sum is that of dp-accounting's
privacy loss distributions, for adding or removing one patient.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

from ctflow_fed.errors import MissingExtraError, SettingsError, StoreError
from ctflow_fed.files import read_json, write_atomically
from ctflow_fed.training.settings import PrivacySettings

__all__ = ["NoisySteps", "PrivacyLedger", "epsilon_of", "spent_in"]

FORMAT = "ctflow-fed privacy 1"


@dataclass(frozen=True)
class NoisySteps:
    """A number of steps that each sampled every patient with the chance ``rate``."""

    noise_multiplier: float
    rate: float
    steps: int

    def __post_init__(self) -> None:
        real = type(self.noise_multiplier) in (int, float)
        if not (real and 0 < self.noise_multiplier < 1e4):
            raise SettingsError("a noise multiplier must lie between 0 and 10000")
        if not (type(self.rate) in (int, float) and 0 < self.rate <= 1):
            raise SettingsError("a sampling rate must lie between 0 and 1")
        if not (type(self.steps) is int and 0 < self.steps < 1e9):
            raise SettingsError("noisy steps are counted from 1 to a billion")


def epsilon_of(events: Sequence[NoisySteps], delta: float) -> float:
    """Return the epsilon of all events together at ``delta``.

    Raises `MissingExtraError` without dp-accounting.
    """
    return _epsilon_of(tuple(events), delta)


@lru_cache(maxsize=64)
def _epsilon_of(events: tuple[NoisySteps, ...], delta: float) -> float:
    """Do so once for the same events: it takes a second."""
    try:
        from dp_accounting.dp_event import GaussianDpEvent, PoissonSampledDpEvent
        from dp_accounting.pld import PLDAccountant
    except ImportError:
        raise MissingExtraError("dp-accounting", "privacy") from None
    accountant = PLDAccountant()
    for event in events:
        step = PoissonSampledDpEvent(
            event.rate, GaussianDpEvent(event.noise_multiplier)
        )
        accountant.compose(step, event.steps)
    return float(accountant.get_epsilon(delta)) if events else 0.0


def spent_in(path: Path, delta: float) -> float:
    """Return what the events of a ledger's file come to at ``delta``.

    Raises ``StoreError`` for a file that is damaged.
    """
    return epsilon_of(_read(path), delta)


class PrivacyLedger:
    """The ledger of one site in one run, and the promise that it keeps to.

    A ledger has one writer at a time. Raises ``StoreError`` for a file that is damaged:
    what was spent is not to be guessed.
    """

    def __init__(self, path: Path, settings: PrivacySettings) -> None:
        self.path = path
        self.settings = settings
        self.events = _read(path) if path.exists() else ()

    @property
    def steps(self) -> int:
        """The noisy steps that are booked."""
        return sum(event.steps for event in self.events)

    def epsilon(self) -> float:
        """Return what is spent at the delta of the settings."""
        return epsilon_of(self.events, self.settings.delta)

    def affordable(self, coming: NoisySteps) -> int:
        """Return how many of the ``coming`` steps the budget allows."""
        if self._allows(coming):
            return coming.steps
        low, high = 0, coming.steps  # so many steps are allowed, so many are not
        while high - low > 1:
            middle = (low + high) // 2
            if self._allows(replace(coming, steps=middle)):
                low = middle
            else:
                high = middle
        return low

    def book(self, coming: NoisySteps) -> None:
        """Write down steps that are about to be taken; they are on disk on return."""
        events = _joined(self.events, coming)
        value = {
            "format": FORMAT,
            "events": [asdict(event) for event in events],
            "delta": self.settings.delta,
            "epsilon": epsilon_of(events, self.settings.delta),
        }
        content = json.dumps(value, indent=2, allow_nan=False) + "\n"
        write_atomically(self.path, lambda partial: _write_through(partial, content))
        self.events = events

    def _allows(self, coming: NoisySteps) -> bool:
        events = _joined(self.events, coming)
        return epsilon_of(events, self.settings.delta) <= self.settings.epsilon


def _joined(
    events: tuple[NoisySteps, ...], coming: NoisySteps
) -> tuple[NoisySteps, ...]:
    """Append steps; those of the same kind as the last ones are counted with them."""
    if events and replace(events[-1], steps=coming.steps) == coming:
        total = replace(coming, steps=events[-1].steps + coming.steps)
        return (*events[:-1], total)
    return (*events, coming)


def _write_through(path: Path, content: str) -> None:
    """Write a file that a power cut does not take away again."""
    with path.open("w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path) -> tuple[NoisySteps, ...]:
    try:
        value = read_json(path)
        if value["format"] != FORMAT:
            raise ValueError
        return tuple(NoisySteps(**event) for event in value["events"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError, SettingsError):
        raise StoreError(
            "expected what was spent of the privacy budget in privacy.json, found a "
            "file that is damaged; restore it, or begin in a new folder"
        ) from None
