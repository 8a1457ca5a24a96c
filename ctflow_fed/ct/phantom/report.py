"""The report of a phantom: what is there with side and size, and what is not."""

from collections.abc import Mapping

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
    found = {finding.name: finding for finding in plan}
    told = [
        (OPENING["contrast" if patient.contrast else "plain"], None),
        *(_choices(name, found) for name in MEDIASTINUM),
        (OPENING["lungs"], None),
        *(_choices(name, found) for name in FINDINGS[len(MEDIASTINUM) :]),
        (CLOSING, None),
        *((_phrases(IMPRESSIONS, finding), finding) for finding in plan),
    ]
    told += [] if plan else [(NORMAL, None)]
    # One call for all of them draws what a call for each would, in a tenth of the time.
    chosen = patient.stream("report").integers([len(choices) for choices, _ in told])
    sentences = [
        choices[pick] if finding is None else _filled(choices[pick], finding)
        for (choices, finding), pick in zip(told, chosen.tolist(), strict=True)
    ]
    ends = 3 + len(FINDINGS)
    return " ".join(sentences[:ends]), " ".join(sentences[ends:])


def _choices(
    name: str, found: Mapping[str, Finding]
) -> tuple[tuple[str, ...], Finding | None]:
    """Return the ways to tell that a finding is there, or that it is not."""
    if name in found:
        return _phrases(PRESENT, found[name]), found[name]
    return ABSENT[name], None


def _phrases(
    phrases: Mapping[str, tuple[str, ...]], finding: Finding
) -> tuple[str, ...]:
    """Return the phrases for a finding of a kind."""
    kind = f"{finding.name}: {finding.kind}"
    return phrases[kind if kind in phrases else finding.name]


def _filled(phrase: str, finding: Finding) -> str:
    """Fill a phrase with the place and the size of a finding."""
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
