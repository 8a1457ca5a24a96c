"""What will be drawn, decided before a voxel exists, so that text and voxels agree."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.errors import SettingsError
from ctflow_fed.seeds import derive_seed

__all__ = ["Finding", "plan_findings"]


@dataclass(frozen=True)
class Finding:
    """One finding as it will be drawn and reported.

    Args:
        name: One of the 18 names of CT-RATE.
        side: ``right``, ``left``, ``both``, or empty where there is no side.
        lobe: ``upper``, ``middle`` or ``lower``, or empty where there is no lobe.
        size_mm: Its longest measure as reported.
        kind: Which of several appearances.
    """

    name: str
    side: str = ""
    lobe: str = ""
    size_mm: float = 0.0
    kind: str = ""


SIDES: dict[str, tuple[str, ...]] = {
    "Emphysema": ("both",),
    "Atelectasis": ("right", "left"),
    "Lung nodule": ("right", "left"),
    "Lung opacity": ("right", "left", "both"),
    "Pulmonary fibrotic sequela": ("right", "left", "both"),
    "Pleural effusion": ("right", "left", "both"),
    "Mosaic attenuation pattern": ("both",),
    "Peribronchial thickening": ("both",),
    "Consolidation": ("right", "left"),
    "Bronchiectasis": ("right", "left"),
    "Interlobular septal thickening": ("both",),
}

LOBES: dict[str, tuple[str, ...]] = {
    "Emphysema": ("upper",),
    "Atelectasis": ("middle", "lower"),
    "Lung nodule": ("upper", "middle", "lower"),
    "Lung opacity": ("upper", "lower"),
    "Pulmonary fibrotic sequela": ("upper",),
    "Consolidation": ("upper", "middle", "lower"),
    "Bronchiectasis": ("lower", "middle"),
    "Interlobular septal thickening": ("lower",),
}

SIZES: dict[str, tuple[float, float]] = {
    "Pericardial effusion": (8, 20),
    "Hiatal hernia": (35, 60),
    "Lymphadenopathy": (16, 32),
    "Lung nodule": (6, 28),
    "Lung opacity": (45, 90),
    "Pleural effusion": (15, 50),
    "Consolidation": (45, 80),
    "Atelectasis": (35, 60),
    "Bronchiectasis": (9, 16),
}
"""Smallest and largest measure in mm."""

KINDS: dict[str, tuple[str, ...]] = {
    "Medical material": ("pacemaker", "port", "sternal wires"),
    "Arterial wall calcification": ("arch", "descending"),
    "Lymphadenopathy": ("paratracheal", "subcarinal", "hilar"),
    "Coronary artery wall calcification": ("left", "left and right"),
}


def plan_findings(names: Collection[str], seed: int) -> tuple[Finding, ...]:
    """Decide side, lobe, size and kind of each finding, in the order of CT-RATE.

    What is decided for one finding depends on the seed alone, never on the others.

    Raises:
        SettingsError: A name is none of the 18.
    """
    unknown = sorted(set(names) - set(FINDINGS))
    if unknown:
        raise SettingsError(
            f"a finding must be one of the 18 of CT-RATE, got {unknown[0]!r}; "
            "see ctflow_fed.ct.labels.FINDINGS"
        )
    return tuple(_decided(name, seed) for name in FINDINGS if name in names)


def _decided(name: str, seed: int) -> Finding:
    """Decide one finding."""
    rng = np.random.default_rng(derive_seed("phantom", seed, "plan", name))
    side = _one_of(rng, SIDES.get(name, ("",)))
    lobe = _one_of(rng, LOBES.get(name, ("",)))
    kind = _one_of(rng, KINDS.get(name, ("",)))
    size = float(round(rng.uniform(*SIZES.get(name, (0, 0)))))
    if lobe == "middle" and side != "right":
        lobe = "lower"
    return Finding(name, side, lobe, size, kind)


def _one_of(rng: np.random.Generator, choices: tuple[str, ...]) -> str:
    """Choose one."""
    return choices[int(rng.integers(len(choices)))]
