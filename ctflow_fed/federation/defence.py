"""What an answer must say to be counted, and updates that moved too far.

The receipt of an answer shows that it is not stale, not misplaced and of the store that
the preflight saw. A site that means harm can write any receipt: against it stand the
limit on the length of an update, the cap on its share and the robust strategies.
"""

import statistics
from collections.abc import Mapping, Sequence

from ctflow_fed import __version__
from ctflow_fed.ct.store import StoreHeader
from ctflow_fed.errors import UpdateError
from ctflow_fed.federation.order import RoundOrder
from ctflow_fed.federation.settings import ConfigValue

__all__ = ["check_receipt", "outliers", "receipt"]

FARTHEST = 5.0
"""An update may move so many times as far as the median update. In rounds of 20 steps
three phantom hospitals differ by less than a quarter, the rounds of a job by less than
two times; the rest is left to real hospitals."""


def receipt(
    order: RoundOrder, site: str, header: StoreHeader
) -> dict[str, ConfigValue]:
    """Return what an answer says that it answers, from whom and about what store."""
    return {
        "version": __version__,
        "round": order.round_number,
        "start": order.start,
        "site": site,
        "codec": header.codec_id,
        "encoder": header.encoder_id,
    }


def check_receipt(
    got: Mapping[str, object], order: RoundOrder, site: str, header: StoreHeader
) -> None:
    """Refuse an answer to another order, of another site or of another store."""
    expected = receipt(order, site, header)
    different = [
        key
        for key, value in expected.items()
        if type(got.get(key)) is not type(value) or got[key] != value
    ]
    if different:
        raise UpdateError(
            f"expected an answer to this very order, got one with another "
            f"{', '.join(different)}; answer what the server sent last, with the "
            "version and the store of the preflight"
        )


def outliers(moved: Mapping[str, float], earlier: Sequence[float]) -> dict[str, str]:
    """Return the reason for each site whose update moved too far in this round.

    ``moved`` is how far each update went, ``earlier`` how far those went that were
    accepted in earlier rounds. The limit is a multiple of the median of all, and no
    site that is alone or one of two is over it in the first round: the median of two
    is their mean, for no one can say which of the two is wrong.
    """
    limit = FARTHEST * statistics.median([*earlier, *moved.values()]) if moved else 0.0
    return {
        site: (
            f"the update moved more than {FARTHEST:g} times as far as the median "
            "update of the job; lower the learning rate or look at the site's data"
        )
        for site, length in moved.items()
        if length > limit
    }
