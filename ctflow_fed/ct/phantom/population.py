"""Hospitals: who comes to them and what they are scanned with."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.ct.phantom.scanner import Scanner
from ctflow_fed.errors import SettingsError
from ctflow_fed.seeds import derive_seed

__all__ = ["HELD_OUT", "HOSPITALS", "PUBLIC", "Population", "draw_findings"]


@dataclass(frozen=True)
class Population:
    """The patients of one hospital and its scanner.

    Args:
        name: The hospital.
        prevalence: The share of patients with each finding; what is not named is rare.
        scanner: What they are scanned with.
    """

    name: str
    prevalence: Mapping[str, float]
    scanner: Scanner

    def __post_init__(self) -> None:
        if set(self.prevalence) - set(FINDINGS):
            raise SettingsError(
                "a prevalence names a finding that CT-RATE does not have"
            )
        if not all(0 <= share <= 1 for share in self.prevalence.values()):
            raise SettingsError("a prevalence must be from 0 to 1")


RARE = 0.04
"""The prevalence of a finding that a population does not name."""

HOSPITALS: dict[str, Population] = {
    "north": Population(  # thoracic surgery
        "north",
        {
            "Lung nodule": 0.55,
            "Pleural effusion": 0.4,
            "Atelectasis": 0.3,
            "Lymphadenopathy": 0.3,
            "Medical material": 0.2,
            "Consolidation": 0.15,
            "Arterial wall calcification": 0.15,
        },
        Scanner(
            noise_hu=12, sharpness=0.25, slice_mm=5.0, field_mm=390, name="North 64"
        ),
    ),
    "coast": Population(  # cardiology
        "coast",
        {
            "Cardiomegaly": 0.5,
            "Coronary artery wall calcification": 0.45,
            "Arterial wall calcification": 0.45,
            "Pericardial effusion": 0.25,
            "Medical material": 0.35,
            "Pleural effusion": 0.25,
            "Interlobular septal thickening": 0.2,
            "Hiatal hernia": 0.15,
        },
        Scanner(
            noise_hu=18, sharpness=0.5, slice_mm=5.0, field_mm=372, name="Coast 128"
        ),
    ),
    "valley": Population(  # pulmonology
        "valley",
        {
            "Emphysema": 0.4,
            "Bronchiectasis": 0.35,
            "Pulmonary fibrotic sequela": 0.35,
            "Peribronchial thickening": 0.3,
            "Mosaic attenuation pattern": 0.25,
            "Lung opacity": 0.3,
            "Consolidation": 0.25,
            "Interlobular septal thickening": 0.15,
        },
        Scanner(
            noise_hu=26, sharpness=0.85, slice_mm=5.0, field_mm=405, name="Valley 16"
        ),
    ),
}
"""Three hospitals that differ in their patients and in their scanners."""

HELD_OUT = Population(
    "plain",
    dict.fromkeys(FINDINGS, 0.2),
    Scanner(noise_hu=16, sharpness=0.4, slice_mm=5.0, field_mm=384, name="Plain 32"),
)
"""A general hospital that trains nothing: every finding comes, from another scanner."""

PUBLIC = Population(
    "public",
    dict.fromkeys(FINDINGS, 0.15),
    Scanner(noise_hu=15, sharpness=0.5, slice_mm=5.0, field_mm=390, name="Public 32"),
)
"""A public collection, what a base model is trained on before any hospital joins."""


def draw_findings(seed: int, population: Population) -> tuple[str, ...]:
    """Draw the findings of one patient, in the order of CT-RATE."""
    rng = np.random.default_rng(derive_seed("phantom", seed, "findings"))
    chance = rng.random(len(FINDINGS))
    return tuple(
        name
        for name, value in zip(FINDINGS, chance, strict=True)
        if value < population.prevalence.get(name, RARE)
    )
