"""One patient: every length that tells this chest from another."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ctflow_fed.seeds import derive_seed

__all__ = ["Patient", "patient_of"]


@dataclass(frozen=True)
class Patient:
    """The measures of one chest in mm; z = 0 is the top of the right diaphragm.

    Args:
        seed: What the finer detail is drawn from.
        age: In years.
        sex: ``M`` or ``F``.
        scale: All lengths against a chest of average size.
        skew: How much wider the left half of the rib cage is, as a share.
        lung: Height of the lungs from the right dome to the apex.
        width: Half the inner width of the rib cage.
        depth: Half its inner depth.
        fat: Thickness of the fat under the skin.
        muscle: Thickness of the muscle against the average.
        heart: Size of the heart against the average.
        rotation: How far the heart's apex points to the left, in degrees.
        left_dome: Height of the left dome of the diaphragm, below 0.
        kyphosis: How far the mid-thoracic spine lies behind its ends.
        contrast: HU that a contrast agent adds to blood; 0 is a plain scan.
        bone: Mineral density of bone against the average.
        gas: Radius of the gas bubble in the stomach.
    """

    seed: int
    age: int
    sex: Literal["M", "F"]
    scale: float
    skew: float
    lung: float
    width: float
    depth: float
    fat: float
    muscle: float
    heart: float
    rotation: float
    left_dome: float
    kyphosis: float
    contrast: float
    bone: float
    gas: float

    @property
    def carina(self) -> float:
        """Height of the carina."""
        return 0.53 * self.lung

    @property
    def middle(self) -> float:
        """Height of the middle of a scan of this chest."""
        return self.lung / 2 - 18

    @property
    def blood(self) -> float:
        """HU of blood."""
        return 42 + self.contrast

    def stream(self, *parts: str | int) -> np.random.Generator:
        """The generator of one detail; details do not disturb each other."""
        return np.random.default_rng(derive_seed("phantom", self.seed, *parts))


def patient_of(seed: int) -> Patient:
    """Draw a patient."""
    rng = np.random.default_rng(derive_seed("phantom", seed, "patient"))
    age = int(_within(rng.normal(56, 15), 20, 89))
    woman = bool(rng.random() < 0.47)
    scale = _within(rng.normal(0.95 if woman else 1.02, 0.04), 0.85, 1.13)
    breath = _within(rng.normal(1.0, 0.08), 0.82, 1.15)
    fat = _within(rng.gamma(6, 2.6), 6, 32) + (4 if woman else 0)
    return Patient(
        seed=seed,
        age=age,
        sex="F" if woman else "M",
        scale=scale,
        skew=float(rng.normal(0, 0.022)),
        lung=205 * scale * breath,
        width=float(rng.normal(132, 5)) * scale,
        depth=float(rng.normal(88, 5)) * scale,
        fat=fat,
        muscle=float(rng.normal(0.9 if woman else 1.1, 0.12)),
        heart=_within(rng.normal(1.02, 0.05), 0.94, 1.1) * scale,
        rotation=float(rng.normal(42, 6)),
        left_dome=-float(rng.uniform(6, 22)),
        kyphosis=float(rng.uniform(4, 9)) + max(0, age - 55) * 0.25,
        contrast=float(rng.uniform(90, 190)) if rng.random() < 0.4 else 0.0,
        bone=_within(1.15 - max(0, age - 40) * 0.008 + rng.normal(0, 0.06), 0.6, 1.3),
        gas=float(rng.uniform(12, 30)),
    )


def _within(value: float, low: float, high: float) -> float:
    """Bring a number into a range; numpy's clip takes ten times as long for one."""
    return float(min(max(value, low), high))
