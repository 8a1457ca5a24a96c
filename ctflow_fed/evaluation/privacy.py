"""Does a generator give its patients away: by its volumes, by its weights?

The volumes are asked by `ctflow_fed.evaluation.copies`, whoever drew them. The weights
are asked by `ctflow_fed.evaluation.membership`. If studies joined the training by the
toss of a coin, what is found out is a lower bound on epsilon, and the promise of the
model's ledger is held against it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ctflow_fed.copies import CopyCheck, CopyIndex, picture_of
from ctflow_fed.copies.picture import Pictures
from ctflow_fed.ct.store import LatentStore
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.errors import SettingsError
from ctflow_fed.evaluation.copies import (
    Compared,
    copy_figures,
    hidden_copies,
    replay_figure,
)
from ctflow_fed.evaluation.exposure import audit_figure, membership_figures
from ctflow_fed.evaluation.features import FeatureCache, Measured
from ctflow_fed.evaluation.figure import Figure
from ctflow_fed.evaluation.measuring import measure_each
from ctflow_fed.evaluation.membership import membership_scores
from ctflow_fed.evaluation.scans import Scan
from ctflow_fed.model import ModelPackage
from ctflow_fed.seeds import derive_seed

__all__ = ["CopySettings", "Weights", "index_of", "measure_copies", "measure_weights"]

FOLD = 5
"""Without scans of others, one patient of so many stands in for them."""

PICTURE: list[object] = ["picture", 2]
"""The key of pictures in the cache."""


@dataclass(frozen=True)
class CopySettings:
    """How many copies are planted to see whether they are found, and the seed."""

    planted: int = 12
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.planted <= 10_000:
            raise SettingsError(
                f"expected 1 to 10,000 planted copies, got {self.planted}"
            )


@dataclass(frozen=True, eq=False)
class Weights:
    """A model, patients it was trained on (``members``), and others like them.

    ``reference`` is a model that no member trained. ``tossed`` says that a coin decided
    of each patient whether to be a member.
    """

    model: ModelPackage
    members: LatentStore
    others: LatentStore
    reference: ModelPackage | None = None
    tossed: bool = False


def index_of(scans: Sequence[Scan]) -> CopyIndex:
    """Return the private index of scans.

    Raises ``SettingsError`` for too few patients, ``VolumeError`` for what is no CT.
    """
    bar = tqdm(scans, "index", unit="scan", disable=None)
    pictures = [picture_of(scan.read()) for scan in bar]
    if not pictures:
        raise SettingsError("expected scans as NIfTI, got none; name their folder")
    return CopyIndex.build(torch.stack(pictures), [scan.patient for scan in scans])


def measure_copies(
    real: Sequence[Scan],
    synthetic: Sequence[Scan],
    held_out: Sequence[Scan],
    *,
    prompts: Mapping[str, str],
    cache: Path,
    settings: CopySettings,
) -> list[Figure]:
    """Compare synthetic volumes with the scans that their generator was trained on.

    Without scans of others (``held_out``) a fifth of the patients is compared with the
    rest. ``prompts`` names for synthetic files the real one whose report was drawn.

    Raises ``SettingsError`` for too few patients or volumes and ``VolumeError`` where
    some cannot be read.
    """
    if not synthetic:
        raise SettingsError("expected synthetic volumes, got none; name their folder")
    asked, scans = _prompts(real, synthetic, prompts)
    kept = FeatureCache(cache)
    pictures = _pictures(real, kept, "real")
    index = CopyIndex.build(pictures, [scan.patient for scan in real])
    drawn = _pictures(synthetic, kept, "synthetic")
    if held_out:
        others = _pictures(held_out, kept, "held out")
        strangers = _checks(index, others, "held out")
    else:
        strangers = _fold(pictures, [scan.patient for scan in real], settings.seed)
    compared = Compared(
        synthetic=_checks(index, drawn, "synthetic"),
        strangers=strangers,
        planted=_planted(index, real, settings),
    )
    return [*copy_figures(compared), replay_figure(index, drawn[asked], scans)]


def measure_weights(weights: Weights, *, seed: int) -> list[Figure]:
    """Try whether who holds the weights can tell who was trained on.

    Raises ``MismatchError`` for stores of another model and ``SettingsError`` for too
    few patients.
    """
    members, others = (
        membership_scores(weights.model, store, seed=seed, reference=weights.reference)
        for store in (weights.members, weights.others)
    )
    origin = weights.model.provenance
    audit = audit_figure(
        members,
        others,
        tossed=weights.tossed,
        epsilon=origin.epsilon,
        delta=origin.delta,
    )
    return [*membership_figures(members, others, seed=seed), audit]


def _pictures(scans: Sequence[Scan], cache: FeatureCache, told: str) -> Pictures:
    rows = measure_each(scans, _picture, cache, PICTURE, told=told)
    return torch.stack([row["picture"] for row in rows])


def _picture(volume: CTVolume) -> Measured:
    return {"picture": picture_of(volume)}


def _checks(index: CopyIndex, pictures: Pictures, told: str) -> list[CopyCheck]:
    bar = tqdm(pictures, f"compare {told}", unit="volume", disable=None)
    return [index.check(each) for each in bar]


def _fold(pictures: Pictures, patients: Sequence[str], seed: int) -> list[CopyCheck]:
    """Compare a fifth of the patients, chosen by lot, with an index of the others."""
    names = sorted(set(patients))
    order = np.random.default_rng(derive_seed("fold", seed)).permutation(len(names))
    out = {names[place] for place in order[: max(1, len(names) // FOLD)]}
    apart = torch.tensor([name in out for name in patients])
    rest = [name for name in patients if name not in out]
    return _checks(CopyIndex.build(pictures[~apart], rest), pictures[apart], "fold")


def _planted(
    index: CopyIndex, real: Sequence[Scan], settings: CopySettings
) -> dict[str, list[CopyCheck]]:
    """Hide copies of scans that are chosen by lot, and look for them."""
    rng = np.random.default_rng(derive_seed("planted", settings.seed))
    chosen = rng.permutation(len(real))[: settings.planted]
    found: dict[str, list[CopyCheck]] = {}
    for place in tqdm(chosen, "planted copies", unit="scan", disable=None):
        seed = derive_seed("planted", settings.seed, int(place))
        for way, copy in hidden_copies(real[place].read(), seed).items():
            found.setdefault(way, []).append(index.check(picture_of(copy)))
    return found


def _prompts(
    real: Sequence[Scan], synthetic: Sequence[Scan], prompts: Mapping[str, str]
) -> tuple[list[int], list[list[int]]]:
    """Return the volumes whose prompt is known, and the scans of each one's patient."""
    patients = {scan.name: scan.patient for scan in real}
    places: dict[str, list[int]] = {}
    for place, scan in enumerate(real):
        places.setdefault(scan.patient, []).append(place)
    asked = [i for i, scan in enumerate(synthetic) if scan.name in prompts]
    sources = [prompts[synthetic[i].name] for i in asked]
    if set(sources) - set(patients):
        raise SettingsError(
            "expected a table of prompts that names real files, got some that are not "
            "there; name them without their ending"
        )
    return asked, [places[patients[source]] for source in sources]
