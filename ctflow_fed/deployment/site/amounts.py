"""How much a site has given already, and if an order asks for more than is left."""

from collections.abc import Iterable
from dataclasses import dataclass

from ctflow_fed.clips import CLIP_SLICES
from ctflow_fed.deployment.site.audit import Entry
from ctflow_fed.deployment.site.policy import Policy, refusal
from ctflow_fed.federation import RoundOrder
from ctflow_fed.training import PrivacySettings

__all__ = ["DELTA", "Holdings", "Spent", "check_amount", "passes", "spent"]

DELTA = PrivacySettings.delta
"""At which the epsilon of all jobs is counted; an order may have a smaller one."""


@dataclass(frozen=True)
class Holdings:
    """How many studies and slices the site's store has."""

    studies: int
    slices: int


@dataclass(frozen=True)
class Spent:
    """What was used before: of a bundle since its approval, and of all privacy.

    ``rounds`` and ``passes`` over the store are the bundle's, ``epsilon`` is what all
    other private jobs of the site have spent together.
    """

    rounds: int = 0
    passes: float = 0.0
    epsilon: float = 0.0


def passes(order: RoundOrder, store: Holdings) -> float:
    """Return how often training goes over the slices of a store, at most."""
    clips = order.steps * order.training.batch_clips
    return clips * CLIP_SLICES / max(1, store.slices)


def spent(entries: Iterable[Entry], bundle: str) -> Spent:
    """Return what a bundle was let do since it was approved, or approved again."""
    rounds, passes = 0, 0.0
    for each in entries:
        if each.bundle != bundle or each.decision != "allowed":
            continue
        if each.event == "approve":
            rounds, passes = 0, 0.0
        elif each.event == "in" and each.kind == "train":
            rounds, passes = rounds + 1, passes + each.passes
    return Spent(rounds, passes)


def check_amount(
    policy: Policy, order: RoundOrder, used: Spent, store: Holdings
) -> None:
    """Refuse an order that asks for more than is left, and name the line.

    Raises ``UpdateError``.
    """
    asked = [
        ("steps", policy.steps, order.steps),
        ("rounds", policy.rounds, used.rounds + 1),
        ("epochs", policy.epochs, used.passes + passes(order, store)),
    ]
    if order.privacy is not None:
        budget = used.epsilon + _epsilon_of(order.privacy)
        asked.append(("largest_epsilon", policy.largest_epsilon, budget))
    for line, allowed, got in asked:
        if got > allowed:
            what = f"{allowed:g} allowed, the order asks for {got:.6g}"
            raise refusal(line, what if line == "steps" else f"{what} in all")


def _epsilon_of(privacy: PrivacySettings) -> float:
    """Return the budget of an order, which is counted at the delta of the site."""
    if privacy.delta > DELTA:
        what = f"counted at a delta of {DELTA:g}, the order has {privacy.delta:g}"
        raise refusal("largest_epsilon", what)
    return privacy.epsilon
