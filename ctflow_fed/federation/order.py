"""What the server tells every site in a round."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ctflow_fed import __version__
from ctflow_fed.errors import MismatchError, UpdateError
from ctflow_fed.federation.encoding import PRECISIONS
from ctflow_fed.federation.settings import LARGEST_RANK, OPTIMIZERS, ConfigValue
from ctflow_fed.files import digest_of, is_sha256
from ctflow_fed.model import FMvTConfig
from ctflow_fed.training import PrivacySettings, TrainSettings

__all__ = ["RoundOrder", "check_version"]

PAYLOADS = ("weights", "adapter")


@dataclass(frozen=True, kw_only=True)
class RoundOrder:
    """What the server tells every site with the weights of a round.

    ``manifest`` is the digest of names and shapes of all arrays that the job trains,
    ``start`` that of the arrays that the order is about, ``base`` that of the weights
    which an adapter belongs to, empty where all weights are trained; ``job`` is the
    name of the job, unlike any other's, and ``sites`` is how many are asked in this
    round. With ``secure`` an update is to leave masked, so that only a sum of several
    can be read. ``privacy`` is what a site is to promise its patients, none without.
    ``version`` is that of the server's library.
    """

    round_number: int
    steps: int
    seed: int
    training: TrainSettings
    network: FMvTConfig
    manifest: str
    start: str
    job: str
    sites: int
    adapter_rank: int = 0
    base: str = ""
    precision: str = "float32"
    optimizer: str = "fresh"
    privacy: PrivacySettings | None = None
    secure: bool = False
    version: str = __version__

    @property
    def payload(self) -> str:
        """What is trained and sent: ``weights``, all of them, or an ``adapter``."""
        return "adapter" if self.base else "weights"

    @property
    def digest(self) -> str:
        """The SHA-256 of all that the order says."""
        return digest_of(self.to_record())

    def to_record(self) -> dict[str, ConfigValue]:
        """Return the order as values that a message can hold."""
        return {
            "round": self.round_number,
            "steps": self.steps,
            "seed": self.seed,
            "training": json.dumps(asdict(self.training), sort_keys=True),
            "network": json.dumps(asdict(self.network), sort_keys=True),
            "manifest": self.manifest,
            "start": self.start,
            "job": self.job,
            "sites": self.sites,
            "payload": self.payload,
            "adapter-rank": self.adapter_rank,
            "base": self.base,
            "precision": self.precision,
            "optimizer": self.optimizer,
            "privacy": _privacy_text(self.privacy),
            "secure": self.secure,
            "version": self.version,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "RoundOrder":
        """Read an order; one of another version or shape is refused in a sentence."""
        check_version(record.get("version"))
        _check_order(record)
        try:
            training = TrainSettings(**json.loads(record["training"]))
            network = FMvTConfig(**json.loads(record["network"]))
            privacy = _privacy_in(record["privacy"])
        except (KeyError, TypeError, ValueError, RecursionError):
            raise UpdateError(
                "the order of a round must name our settings of training, network and "
                "privacy"
            ) from None
        return cls(
            round_number=record["round"],
            steps=record["steps"],
            seed=record["seed"],
            training=training,
            network=network,
            manifest=record["manifest"],
            start=record["start"],
            job=record["job"],
            sites=record["sites"],
            adapter_rank=record["adapter-rank"],
            base=record["base"],
            precision=record["precision"],
            optimizer=record["optimizer"],
            privacy=privacy,
            secure=record["secure"],
        )


def _privacy_text(privacy: PrivacySettings | None) -> str:
    return json.dumps(asdict(privacy), sort_keys=True) if privacy else ""


def _privacy_in(text: str) -> PrivacySettings | None:
    return PrivacySettings(**json.loads(text)) if text else None


def _check_order(record: Mapping[str, Any]) -> None:
    """Refuse the numbers, words and digests that no order of ours has."""
    million = dict.fromkeys(("round", "steps", "sites"), 10**6)
    limits = {**million, "seed": 2**63 - 1, "adapter-rank": LARGEST_RANK}
    words = {"payload": PAYLOADS, "precision": PRECISIONS, "optimizer": OPTIMIZERS}
    is_adapter, base = record.get("payload") == "adapter", record.get("base")
    if not (
        all(_is_count(record.get(key), most) for key, most in limits.items())
        and all(record.get(key) in known for key, known in words.items())
        and all(is_sha256(record.get(key)) for key in ("manifest", "start", "job"))
        and (is_sha256(base) if is_adapter else base == "")
        and is_adapter == bool(record["adapter-rank"])
        and type(record.get("secure")) is bool
    ):
        raise UpdateError(
            "expected the order of a round, got a message without it or with values "
            "that none has; install the same version at the server and at every site"
        )


def check_version(version: object) -> None:
    """Refuse a message of another version of this library."""
    if version != __version__:
        raise MismatchError(
            f"expected version {__version__} of ctflow-fed on both ends, got another; "
            "install the same version at the server and at every site"
        )


def _is_count(value: object, most: int) -> bool:
    return type(value) is int and 0 <= value <= most
