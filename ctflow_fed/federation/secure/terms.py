"""What all sites and the server agree on before a secure round."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from ctflow_fed.errors import SettingsError, UpdateError
from ctflow_fed.federation.arrays import Manifest
from ctflow_fed.federation.settings import LEAST_IN_SUM, check_site_name
from ctflow_fed.files import digest_of

__all__ = ["LEAST_IN_SUM", "Terms", "smallest_threshold"]

PROTOCOL = "ctflow secure aggregation 2"
MOST = 1000
SLACK = 1e-6


def smallest_threshold(sites: int) -> int:
    """Return the smallest threshold of which no two disjoint groups exist."""
    return max(2, sites // 2 + 1)


@dataclass(frozen=True, kw_only=True)
class Terms:
    """One attempt at a secure round.

    ``order`` is the digest of the order that all sites train by, its weights included:
    a server cannot let one train and give the others what makes their updates known.
    ``shares`` is the public weight of each site in the mean, at most 1 together;
    ``manifest`` the names and shapes of the arrays; ``bound`` the largest size of a
    number in an update, beyond which it is clipped; ``threshold`` how many sites
    together unmask. A retry of a round has another ``attempt``. A value out of range
    raises ``SettingsError``.

    Every signature and every key is bound to the digest of all of it, so a server that
    tells two sites different terms gets nothing from either.
    """

    order: str
    attempt: int
    shares: Mapping[str, float]
    manifest: Manifest
    bound: float
    threshold: int

    def __post_init__(self) -> None:
        for site in self.shares:
            check_site_name(site)
        if not LEAST_IN_SUM <= len(self.shares) <= MOST:
            raise SettingsError(
                f"expected {LEAST_IN_SUM} to {MOST} sites in a secure round, got "
                f"{len(self.shares)}; a sum of fewer hides nobody"
            )
        self._check_numbers()
        if (
            not smallest_threshold(len(self.shares))
            <= self.threshold
            <= len(self.shares)
        ):
            raise SettingsError(
                "expected a threshold of more than half of the sites and at most all, "
                "got another; take smallest_threshold"
            )

    def _check_numbers(self) -> None:
        shares = self.shares.values()
        if not all(0 < each <= 1 for each in shares) or math.fsum(shares) > 1 + SLACK:
            raise SettingsError(
                "expected positive shares of at most 1 together, got others; "
                "leave sites without slices out"
            )
        if not (math.isfinite(self.bound) and self.bound > 0):
            raise SettingsError("expected a positive, finite bound, got another")

    @property
    def sites(self) -> tuple[str, ...]:
        """The names of the sites, in order."""
        return tuple(sorted(self.shares))

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the terms."""
        return digest_of(self._values())

    def to_text(self) -> str:
        """Return the terms as they travel."""
        return json.dumps(self._values())

    @classmethod
    def from_text(cls, text: object) -> "Terms":
        """Read the terms of a message; what are none raises ``UpdateError``."""
        try:
            values: dict[str, Any] = json.loads(str(text))
            manifest = {name: tuple(each) for name, each in values["manifest"].items()}
            return cls(**(values | {"manifest": manifest}))
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
            raise UpdateError(
                "expected the terms of a secure round, got something else; "
                "install the same version everywhere"
            ) from None

    def _values(self) -> dict[str, Any]:
        manifest = {name: list(shape) for name, shape in self.manifest.items()}
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return values | {"shares": dict(self.shares), "manifest": manifest}

    def context(self, purpose: str, *parts: str) -> bytes:
        """Return the bytes that bind a key or a signature to these terms and a use."""
        return json.dumps([PROTOCOL, self.digest, purpose, *parts]).encode()

    def point(self, site: str) -> int:
        """Return the point at which the share of a site is the secret's polynomial."""
        return self.sites.index(site) + 1
