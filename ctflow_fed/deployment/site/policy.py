"""What a site allows: its site.toml, which nothing that arrives can change."""

import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import time
from pathlib import Path
from typing import Any

from ctflow_fed.errors import SettingsError, UpdateError

__all__ = [
    "METRICS",
    "POLICY",
    "SITE_TOML",
    "Hours",
    "Policy",
    "read_policy",
    "refusal",
]

POLICY = "site.toml"
METRICS = ("num-examples", "loss-first", "loss-last", "loss")
CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
KEY = re.compile(r"[A-Za-z0-9+/]{59}=")  # an Ed25519 key as openssl writes it

SITE_TOML = """\
# What this site allows. Nothing that arrives from outside changes this file, and every
# refusal names its line. Start the site again after a change.

# Who must have signed a bundle before it can be approved: Ed25519 public keys, the
# middle line of `openssl pkey -in key.pem -pubout`. Empty: who approves has read it.
signers = []

# What may be trained: "weights", all of them, or "adapter" on a base model whose
# weights have one of these digests.
payloads = ["weights", "adapter"]
base_models = []

# How much: rounds, and passes over all slices, since the bundle was approved; approve
# it again to grant as much again. Steps are those of one round.
rounds = 1000
epochs = 1000
steps = 2000

# When: local time, e.g. "19:00-07:00"; "" for always.
hours = ""

# The share of a GPU's memory that training may take; 0 for no GPU.
gpu_share = 1.0

# A store with fewer studies takes no part.
minimum_studies = 5

# What may leave beside weights: of these metrics, and every number of them, of studies
# and of slices with so many significant digits.
metrics = ["num-examples", "loss-first", "loss-last", "loss"]
digits = 3

# How far weights may have moved, as a multiple of the length of those that came, and
# how large a message may be, in or out, with the weights that are sent beside it.
largest_norm = 10.0
megabytes = 4000

# What may ever be told of any one patient by all private jobs together: the epsilons,
# at a delta of 1e-5, of what they have spent and of what an order may still spend.
largest_epsilon = 10.0

# What a round must offer: noise of DP-SGD (noise multiplier), sites that take part,
# secure aggregation.
minimum_noise = 0.0
minimum_sites = 2
secure_aggregation = false
"""


@dataclass(frozen=True)
class Hours:
    """A span of local time; one that ends before it begins goes over midnight."""

    begin: time
    end: time

    def __contains__(self, moment: time) -> bool:
        if self.begin <= self.end:
            return self.begin <= moment < self.end
        return moment >= self.begin or moment < self.end


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What a site allows, line by line of its site.toml; ``hours`` None is always.

    ``epochs`` are passes over all slices of the store, ``largest_norm`` a multiple of
    the length of the weights that came, ``megabytes`` those of one message
    and of the weights beside it, ``largest_epsilon`` that of all private jobs.
    """

    signers: tuple[str, ...]
    payloads: tuple[str, ...]
    base_models: tuple[str, ...]
    rounds: int
    epochs: float
    steps: int
    hours: Hours | None
    gpu_share: float
    minimum_studies: int
    metrics: tuple[str, ...]
    digits: int
    largest_norm: float
    megabytes: float
    largest_epsilon: float
    minimum_noise: float
    minimum_sites: int
    secure_aggregation: bool


def read_policy(path: Path) -> Policy:
    """Read a site.toml, which must have every key and no other.

    Raises ``SettingsError`` with the key that is missing, unknown or of a wrong value.
    """
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        raise SettingsError(
            f"expected the site's decisions in {POLICY}, got no TOML; "
            "restore it from the kit"
        ) from None
    names = {field.name for field in fields(Policy)}
    for key in sorted(names ^ set(values)):
        what = "a line that is missing" if key in names else "a key that is not known"
        raise SettingsError(
            f"expected exactly the keys of the kit's {POLICY}, got {what}: "
            f"{key[:40]!r}; correct it"
        )
    return Policy(**{name: _value(name, values[name]) for name in sorted(names)})


def refusal(line: str, what: str) -> UpdateError:
    """Return the refusal of what goes beyond a line of a site.toml."""
    return UpdateError(f"{POLICY}, {line}: {what}")


def _value(name: str, value: object) -> Any:  # noqa: ANN401  # of the field's type
    expected, read = READERS[name]
    try:
        return read(value)
    except (TypeError, ValueError):
        raise SettingsError(
            f"expected {expected} as {name} in {POLICY}, got something else; correct it"
        ) from None


Reader = tuple[str, Callable[[object], object]]


def _whole(low: int, high: int = 10**9) -> Reader:
    def read(value: object) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError
        return value

    return f"a whole number from {low} to {high}", read


def _number(low: float, high: float = 1e9) -> Reader:
    def read(value: object) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise TypeError
        if not low <= value <= high:
            raise ValueError
        return float(value)

    return f"a number from {low:g} to {high:g}", read


def _list(expected: str, pattern: str) -> Reader:
    def read(value: object) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise TypeError
        if not all(isinstance(e, str) and re.fullmatch(pattern, e) for e in value):
            raise ValueError
        return tuple(value)

    return f"a list of {expected}", read


def _hours(value: object) -> Hours | None:
    if value == "":
        return None
    if not isinstance(value, str) or not (found := CLOCK.fullmatch(value)):
        raise ValueError
    first, second, third, fourth = map(int, found.groups())
    return Hours(time(first, second), time(third, fourth))


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


READERS: dict[str, Reader] = {
    "signers": _list("Ed25519 public keys in base64", KEY.pattern),
    "payloads": _list("`weights` and `adapter`", "weights|adapter"),
    "base_models": _list("digests of 64 hexadecimal digits", "[0-9a-f]{64}"),
    "rounds": _whole(0),
    "epochs": _number(0),
    "steps": _whole(0),
    "hours": ("two times such as 19:00-07:00, or nothing,", _hours),
    "gpu_share": _number(0, 1),
    "minimum_studies": _whole(1),
    "metrics": _list(f"some of {', '.join(METRICS)}", "|".join(METRICS)),
    "digits": _whole(1, 15),
    "largest_norm": _number(0),
    "megabytes": _number(0),
    "largest_epsilon": _number(0),
    "minimum_noise": _number(0),
    "minimum_sites": _whole(0),
    "secure_aggregation": ("true or false", _flag),
}
