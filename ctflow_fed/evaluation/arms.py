"""Which items each arm of the utility test is trained on.

The control is the arm ``duplicated``. Synthetic volumes are asked to show what the real
studies lack, so a gain over ``real`` alone may come from labels that are better
balanced. The copies are chosen to balance them alike: one after another, each the real
study that brings the counts of the findings among the copies nearest to those among as
large a part of the synthetic volumes. None is copied more than three times as often as
if all were copied alike, or a single patient could fill the arm; and a finding that no
real study has cannot be copied. So the balance is only as good as copies can make it.
"""

import numpy as np
from jaxtyping import Int64

from ctflow_fed.evaluation.volumes import Labels
from ctflow_fed.seeds import derive_seed

__all__ = ["ARMS", "EVERY_ARM", "STRENGTHS", "Places", "arms_of"]

ARMS = ("real", "duplicated", "synthetic_added")
"""The arms in the order in which they are trained and shown."""

EVERY_ARM = ("real", "duplicated", "augmented", "synthetic", "synthetic_added")
"""Those of a whole trial: ``synthetic`` has no real item, ``augmented`` is ``real``,
its items moved, brightened and roughened much more."""

STRENGTHS = {"augmented": 3}
"""How much more, by arm; 1 for the others."""

MOST_COPIES = 3
"""Copies of a real item at most, as a multiple of what an even spread would give."""

Places = Int64[np.ndarray, " items"]
"""Where the items of an arm stand in the list of real, then synthetic items."""


def arms_of(labels: Labels, real: int, *, seed: int) -> dict[str, Places]:
    """Return the places of each arm's items in the list of real, then synthetic ones.

    ``labels`` are those of the list; its first ``real`` items are real. Copies balance
    the labels as the synthetic items do; see the head of this module.
    """
    own = np.arange(real)
    every = np.arange(len(labels))
    return {
        "real": own,
        "duplicated": np.concatenate([own, _copies(labels, real, seed)]),
        "augmented": own,
        "synthetic": every[real:],
        "synthetic_added": every,
    }


def _copies(labels: Labels, real: int, seed: int) -> Places:
    """Choose real items whose labels add up as those of the synthetic ones do.

    Of equally good items the one with fewest copies is taken, then by lot.
    """
    order = np.random.default_rng(derive_seed("duplicates", seed)).permutation(real)
    own, wanted = labels[order].astype(np.int64), labels[real:].sum(axis=0)
    copies, used = len(labels) - real, np.zeros(real, dtype=np.int64)
    most = MOST_COPIES * -(-copies // real)
    for number in range(1, copies + 1):
        # Times the number of copies: whole numbers, in which ties are ties.
        lacking = number * wanted - copies * (used @ own)
        distances = ((lacking - copies * own) ** 2).sum(axis=1)
        used[np.lexsort((used, distances, used >= most))[0]] += 1
    return np.repeat(order, used)
