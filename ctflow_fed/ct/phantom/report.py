"""The report of a phantom: what is there with side and size, and what is not."""

from collections.abc import Mapping

import numpy as np

from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.ct.phantom.patient import Patient, patient_of
from ctflow_fed.ct.phantom.phrases import (
    ABSENT,
    CLOSING,
    IMPRESSIONS,
    NORMAL,
    OPENING,
    PRESENT,
)
from ctflow_fed.ct.phantom.plan import Finding, plan_findings

__all__ = ["compose", "report_of"]

MEDIASTINUM = FINDINGS[:7]
"""The findings that are told before the lungs."""


def compose(labels: Mapping[str, int], seed: int) -> tuple[str, str]:
    """Return findings and impression of the study that `draw` would make.

    Args:
        labels: 1 for each finding that is present; absent names count as 0.
        seed: Chooses sides, sizes and wording, the same as in `draw`.

    Raises:
        SettingsError: A name is none of the 18.
    """
    present = [name for name, label in labels.items() if label]
    return report_of(plan_findings(present, seed), patient_of(seed))


def report_of(plan: tuple[Finding, ...], patient: Patient) -> tuple[str, str]:
    """Return the findings and the impression section of planned findings."""
    rng = patient.stream("report")
    found = {finding.name: finding for finding in plan}
    sentences = [_choose(rng, OPENING["contrast" if patient.contrast else "plain"])]
    sentences += [_sentence(rng, name, found) for name in MEDIASTINUM]
    sentences.append(_choose(rng, OPENING["lungs"]))
    sentences += [_sentence(rng, name, found) for name in FINDINGS[7:]]
    sentences.append(_choose(rng, CLOSING))
    impression = [_said(rng, IMPRESSIONS, finding) for finding in plan]
    return " ".join(sentences), " ".join(impression or [_choose(rng, NORMAL)])


def _sentence(rng: np.random.Generator, name: str, found: Mapping[str, Finding]) -> str:
    """Tell that a finding is there, or that it is not."""
    if name in found:
        return _said(rng, PRESENT, found[name])
    return _choose(rng, ABSENT[name])


def _said(
    rng: np.random.Generator, phrases: Mapping[str, tuple[str, ...]], finding: Finding
) -> str:
    """Fill one of a finding's phrases with its place and its size."""
    kind = f"{finding.name}: {finding.kind}"
    phrase = _choose(rng, phrases[kind if kind in phrases else finding.name])
    both = finding.side == "both"
    text = phrase.format(
        side=finding.side,
        sides="both sides" if both else f"the {finding.side} side",
        lung="both lungs" if both else f"the {finding.side} lung",
        lobe=f"the {finding.lobe} lobes of both lungs"
        if both
        else f"the {finding.lobe} lobe of the {finding.side} lung",
        pleural="Bilateral pleural effusions"
        if both
        else f"A {finding.side} pleural effusion",
        are="are" if both else "is",
        mm=f"{finding.size_mm:.0f}",
        kind=finding.kind,
    )
    return text[0].upper() + text[1:]


def _choose(rng: np.random.Generator, choices: tuple[str, ...]) -> str:
    """Choose one phrase."""
    return choices[int(rng.integers(len(choices)))]
