"""What a site keeps between two messages of a secure round."""

import json
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from ctflow_fed.errors import MismatchError
from ctflow_fed.files import write_private

__all__ = ["STEPS", "SiteSecrets", "read_state", "write_state"]

STEPS = ("advertise", "share", "mask", "confirm", "reveal", "over")


@dataclass(frozen=True, kw_only=True)
class SiteSecrets:
    """The secrets of a site in one round, and what it is to do next.

    ``received`` holds for each site the shares of its mask key and of its seed,
    ``survivors`` are the sites that this one has confirmed to be in the sum.
    """

    step: str = STEPS[0]
    cipher_secret: bytes = field(default=b"", repr=False)
    mask_secret: bytes = field(default=b"", repr=False)
    seed: bytes = field(default=b"", repr=False)
    advertisements: dict[str, list[bytes]] = field(default_factory=dict)
    received: dict[str, list[bytes]] = field(default_factory=dict, repr=False)
    survivors: list[str] = field(default_factory=list)

    @classmethod
    def fresh(cls) -> "SiteSecrets":
        """Return new secrets, from the operating system."""
        return cls(
            cipher_secret=secrets.token_bytes(32),
            mask_secret=secrets.token_bytes(32),
            seed=secrets.token_bytes(32),
        )

    def to_json(self) -> bytes:
        """Return the state as JSON, with bytes in hexadecimal digits."""
        return json.dumps(self.__dict__, default=bytes.hex).encode()

    @classmethod
    def from_json(cls, content: bytes) -> "SiteSecrets":
        """Read a state; what is none raises ``MismatchError``."""
        try:
            value = json.loads(content)
            state = cls(
                step=value["step"],
                cipher_secret=bytes.fromhex(value["cipher_secret"]),
                mask_secret=bytes.fromhex(value["mask_secret"]),
                seed=bytes.fromhex(value["seed"]),
                advertisements=_lists(value["advertisements"]),
                received=_lists(value["received"]),
                survivors=[str(site) for site in value["survivors"]],
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            state = None
        if state is None or state.step not in STEPS:
            raise MismatchError(
                "expected the state of a secure round, got something else; "
                "repeat the round as another attempt"
            )
        return state


def _lists(value: dict[str, list[str]]) -> dict[str, list[bytes]]:
    return {site: [bytes.fromhex(each) for each in row] for site, row in value.items()}


def read_state(path: Path) -> SiteSecrets:
    """Read the state of a round, new where there is none yet."""
    if not path.exists():
        return SiteSecrets.fresh()
    return SiteSecrets.from_json(path.read_bytes())


def write_state(path: Path, state: SiteSecrets) -> None:
    """Write a state that the user of the site alone may read."""
    write_private(path, state.to_json())
