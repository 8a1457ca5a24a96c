"""What every site says before the first round, and whether the sites fit together."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ctflow_fed import __version__
from ctflow_fed.ct.store import LatentStore, StoreHeader
from ctflow_fed.errors import MismatchError, SettingsError, StoreError, UpdateError
from ctflow_fed.federation.order import check_version
from ctflow_fed.federation.settings import ConfigValue, check_site_name
from ctflow_fed.training import describe

__all__ = [
    "COUNTS",
    "SiteFacts",
    "agreed_header",
    "facts_of",
    "mean_slices",
    "mean_spacing",
]

COUNTS = {"studies", "slices", "spacing"}
"""The facts that tell of patients."""

MOST_SLICES = 10**9
LONGEST_MM = 2.0**20  # as long as a store's spacing may be


@dataclass(frozen=True, kw_only=True)
class SiteFacts:
    """What the server is told about a site: how much of what kind, nothing of whom.

    ``spacing`` is the median over the site's studies, in mm. All three numbers tell of
    patients: a private job is told none of them, and they are zero.
    """

    site: str
    header: StoreHeader
    studies: int = 0
    slices: int = 0
    spacing: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def weight(self) -> int:
        """How much the site counts in a mean: its slices, or 1 if they are not told."""
        return self.slices or 1

    def to_record(self) -> dict[str, ConfigValue | list[float]]:
        """Return the facts as values that a message can hold."""
        counts = {"studies": self.studies, "slices": self.slices}
        return {
            "version": __version__,
            "site": self.site,
            "header": json.dumps(asdict(self.header), sort_keys=True),
            **({**counts, "spacing": list(self.spacing)} if self.slices else {}),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "SiteFacts":
        """Read the facts; those of another version are refused in a sentence."""
        check_version(record.get("version"))
        try:
            header = StoreHeader.from_json(json.loads(record["header"]))
            counts = _counts_in(record) if COUNTS & set(record) else {}
            return cls(site=check_site_name(record["site"]), header=header, **counts)
        except (
            *(KeyError, TypeError, ValueError, OverflowError, RecursionError),
            *(SettingsError, StoreError),
        ):
            raise UpdateError(
                "expected the facts of a site, got something else"
            ) from None


def _counts_in(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers that a site has stated; those of no store are refused."""
    kinds = {"studies": int, "slices": int, "spacing": list}
    if any(type(record.get(key)) is not kind for key, kind in kinds.items()):
        raise UpdateError(
            "expected the studies and slices of a site as counts and its spacing "
            "as a list; install the same version at the server and at every site"
        )
    studies, slices = record["studies"], record["slices"]
    slice_mm, row_mm, col_mm = spacing = tuple(map(float, record["spacing"]))
    if not (0 < studies <= slices <= MOST_SLICES) or not all(
        0 < length <= LONGEST_MM for length in spacing
    ):
        raise UpdateError(
            "expected a site with studies, slices and their spacing; "
            "take studies in with: ctflow intake"
        )
    lengths = (slice_mm, row_mm, col_mm)
    return {"studies": studies, "slices": slices, "spacing": lengths}


def facts_of(store: LatentStore, site: str, *, private: bool = False) -> SiteFacts:
    """Return what a site says of its store; an empty one raises ``StoreError``.

    For a ``private`` job it is of what kind the store is, and no number.
    """
    if not len(store):
        raise StoreError("the store holds no study; take some in with: ctflow intake")
    facts = SiteFacts(site=check_site_name(site), header=store.header)
    if private:
        return facts
    return replace(
        facts,
        studies=len(store),
        slices=sum(record.slices for record in store.records),
        spacing=describe(store, steps=0, seed=0).spacing,
    )


def agreed_header(facts: Sequence[SiteFacts]) -> StoreHeader:
    """Return the header that all stores share, or say which differs and in what."""
    first, *others = sorted(facts, key=lambda each: each.site)
    for other in others:
        expected, got = asdict(first.header), asdict(other.header)
        different = sorted(key for key in expected if expected[key] != got[key])
        if different:
            raise MismatchError(
                f"the stores of {first.site} and {other.site} differ in "
                f"{', '.join(different)}; take the studies in with the same codec, "
                "report encoder and image size at every site"
            )
    return first.header


def mean_spacing(facts: Sequence[SiteFacts]) -> tuple[float, float, float]:
    """Return the mean spacing over the slices of all sites, in mm."""
    ordered = sorted(facts, key=lambda each: each.site)
    slices = sum(each.slices for each in ordered)
    slice_mm, row_mm, col_mm = (
        math.fsum(each.slices * each.spacing[axis] for each in ordered) / slices
        for axis in range(3)
    )
    return (slice_mm, row_mm, col_mm)


def mean_slices(facts: Sequence[SiteFacts]) -> int:
    """Return the mean number of slices over the studies of all sites."""
    slices = sum(each.slices for each in facts)
    return round(slices / sum(each.studies for each in facts))
