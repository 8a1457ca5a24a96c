"""What a model package says of the store it was trained on."""

import statistics

from ctflow_fed.ct.store import LatentStore
from ctflow_fed.model import Provenance

__all__ = ["describe"]


def describe(
    store: LatentStore,
    *,
    steps: int,
    seed: int,
    parent: str = "",
    method: str = "known",
) -> Provenance:
    """Return the provenance of a model trained on one store.

    Spacing and number of slices are medians over the studies.
    """
    spacings = zip(*(record.spacing for record in store.records), strict=True)
    slice_mm, row_mm, col_mm = (statistics.median(each) for each in spacings)
    return Provenance(
        codec_id=store.header.codec_id,
        encoder_id=store.header.encoder_id,
        latent_size=(store.header.height, store.header.width),
        slices=round(statistics.median(record.slices for record in store.records)),
        spacing=(slice_mm, row_mm, col_mm),
        steps=steps,
        seed=seed,
        parent=parent,
        method=method,
    )
