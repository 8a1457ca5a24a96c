"""Parts of a list of items, each part inside any larger one."""

from collections.abc import Sequence

from ctflow_fed.errors import SettingsError
from ctflow_fed.evaluation.volumes import Item
from ctflow_fed.seeds import derive_seed

__all__ = ["first_of", "some_patients"]


def some_patients(items: Sequence[Item], share: float, *, seed: int) -> list[Item]:
    """Return the items of a share of the patients, at least of one, chosen by lot."""
    if not 0 < share <= 1:
        raise SettingsError(
            f"expected a fraction of the patients above 0 and up to 1, got {share:g}"
        )
    names = {str(item["patient"]) for item in items}
    order = sorted(names, key=lambda name: derive_seed("portion", seed, name))
    kept = set(order[: max(1, round(share * len(order)))])
    return [item for item in items if item["patient"] in kept]


def first_of(items: Sequence[Item], count: float, *, seed: int) -> list[Item]:
    """Return so many items, at least one, chosen by lot."""
    if not count > 0:
        raise SettingsError("expected a ratio above 0; leave it out for all volumes")
    order = sorted(items, key=lambda item: _lot(item, seed))
    return order[: max(1, round(min(count, len(order))))]


def _lot(item: Item, seed: int) -> int:
    return derive_seed("portion", seed, str(item["sample_id"]))
