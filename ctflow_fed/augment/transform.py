"""A MONAI transform that puts synthetic volumes in the place of real ones."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ctflow_fed.augment.datalist import extend
from ctflow_fed.augment.item import harmonised, label_vector
from ctflow_fed.augment.store import SynthStore
from ctflow_fed.errors import MissingExtraError, SettingsError, StoreError

try:
    from monai.transforms.transform import MapTransform, RandomizableTransform
except ImportError as error:
    raise MissingExtraError("monai", "augment") from error

__all__ = ["RandSyntheticCTd"]


class RandSyntheticCTd(RandomizableTransform, MapTransform):
    """Swap a real item, with probability ``prob``, for a synthetic one of ``store``.

    The one that comes has the same label profile or a rarer one. A profile is as rare
    as its rarest finding is among ``items``, the training list; one without findings
    is the most common. So a swap never takes a rare finding away for a common one.

    It takes paths, so it stands first in a ``Compose``, before ``LoadImaged``. Every
    item leaves with the keys of `extend`, swapped or not. ``CacheDataset`` and
    ``PersistentDataset`` cache up to the first random transform: behind this one
    nothing is cached. To cache what is loaded, mix by `mix_weights` instead.
    """

    def __init__(
        self,
        store: SynthStore | Path | str,
        items: Sequence[Mapping[str, Any]],
        prob: float = 0.5,
    ) -> None:
        RandomizableTransform.__init__(self, prob)
        MapTransform.__init__(self, ("image", "label"))
        if not items:
            raise SettingsError(
                "expected the training list, at least one item, got an empty one"
            )
        found = store if isinstance(store, SynthStore) else SynthStore(store)
        self.prevalence = np.mean([label_vector(item) > 0.5 for item in items], axis=0)
        self.bank = sorted(
            extend([], found), key=lambda item: self._rarity(item["label"])
        )
        if not self.bank:
            raise StoreError(
                "expected synthetic volumes to swap in, got a set without any; "
                "make them with: ctflow augment run"
            )
        self._rarities = [self._rarity(item["label"]) for item in self.bank]

    def randomize(self, data: int) -> None:
        """Decide whether to swap, and for which of the first ``data`` of the bank."""
        super().randomize(None)
        self._place = int(self.R.random_sample() * data)

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the item, or a synthetic one in its place."""
        item = harmonised(data)
        rarity = self._rarity(item["label"])
        fitting = int(np.searchsorted(self._rarities, rarity, side="right"))
        self.randomize(fitting)
        if self._do_transform and fitting and not item["synthetic"]:
            chosen = self.bank[self._place]
            patient = {"patient": chosen["sample_id"]} if "patient" in item else {}
            item = {**chosen, **patient, "label": chosen["label"].copy()}
        return item

    def _rarity(self, label: np.ndarray) -> float:
        """Return how often the rarest finding of a label occurs, 1 for no finding."""
        return float(self.prevalence[label > 0.5].min(initial=1.0))
