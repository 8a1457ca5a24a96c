"""One phantom study: volume, labels, masks and report of one patient."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.ct.phantom.anatomy import paint_anatomy
from ctflow_fed.ct.phantom.patient import patient_of
from ctflow_fed.ct.phantom.plan import plan_findings
from ctflow_fed.ct.phantom.report import report_of
from ctflow_fed.ct.phantom.scanner import Scanner
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.seeds import derive_seed
from ctflow_fed.shapes import VoxelMask

__all__ = ["PhantomStudy", "draw"]


@dataclass(frozen=True, eq=False)
class PhantomStudy:
    """A drawn study and the truth about it.

    Args:
        volume: The scan.
        labels: 0 or 1 for each of the 18 findings.
        masks: For each finding that is present, the voxels that it takes; none where
            the scan does not reach it.
        findings: The findings section of the report.
        impression: Its impression section.
        age: In years.
        sex: ``M`` or ``F``.
    """

    volume: CTVolume
    labels: dict[str, int]
    masks: dict[str, VoxelMask]
    findings: str
    impression: str
    age: int
    sex: Literal["M", "F"]


def draw(
    seed: int, findings: Collection[str] = (), *, scanner: Scanner | None = None
) -> PhantomStudy:
    """Draw the patient of ``seed`` with these findings, seen by ``scanner``.

    The patient is the same whatever the findings and the scanner.

    Raises:
        SettingsError: A finding is none of the 18 of CT-RATE.
    """
    scanner = scanner or Scanner()
    plan = plan_findings(findings, seed)
    patient = patient_of(seed)
    canvas, masks = paint_anatomy(patient, plan, scanner)
    hu = scanner.acquire(canvas.hu, derive_seed("phantom", seed, "noise"))
    text, impression = report_of(plan, patient)
    return PhantomStudy(
        volume=CTVolume(hu, scanner.affine, ("phantom",)),
        labels={name: int(name in masks) for name in FINDINGS},
        masks=masks,
        findings=text,
        impression=impression,
        age=patient.age,
        sex=patient.sex,
    )
