"""The order in which a chest is painted."""

from dataclasses import replace

import numpy as np

from ctflow_fed.ct.phantom.abdomen import paint_abdomen
from ctflow_fed.ct.phantom.canvas import Canvas
from ctflow_fed.ct.phantom.findings import paint_findings
from ctflow_fed.ct.phantom.geometry import Chest
from ctflow_fed.ct.phantom.lungs import paint_lungs
from ctflow_fed.ct.phantom.mediastinum import (
    paint_airways,
    paint_fat,
    paint_mediastinum,
)
from ctflow_fed.ct.phantom.patient import Patient
from ctflow_fed.ct.phantom.plan import Finding
from ctflow_fed.ct.phantom.scanner import Scanner
from ctflow_fed.ct.phantom.scene import Scene
from ctflow_fed.ct.phantom.wall import paint_bones, paint_table, paint_wall
from ctflow_fed.shapes import VoxelMask

__all__ = ["paint_anatomy"]


ENLARGED = 1.24
"""How much larger an enlarged heart is than that patient's usual one."""


def paint_anatomy(
    patient: Patient, plan: tuple[Finding, ...], scanner: Scanner
) -> tuple[Canvas, dict[str, VoxelMask]]:
    """Paint a patient with the planned findings; return the canvas and the masks."""
    large = any(finding.name == "Cardiomegaly" for finding in plan)
    shown = replace(patient, heart=patient.heart * ENLARGED) if large else patient
    canvas = Canvas(scanner, patient.middle)
    scene = Scene.begin(canvas, Chest(shown), Chest(patient))
    paint_table(scene)
    paint_wall(scene)
    paint_fat(scene)
    paint_abdomen(scene)
    paint_lungs(scene)
    paint_mediastinum(scene)
    paint_airways(scene)
    paint_bones(scene)
    paint_findings(scene, plan)
    nowhere = np.zeros_like(scene.cage)  # a scan may miss a finding of its patient
    shares = {finding.name: scene.masks.get(finding.name, nowhere) for finding in plan}
    return canvas, {name: _mask(share) for name, share in shares.items()}


def _mask(share: np.ndarray) -> VoxelMask:
    """The voxels that something takes; the fullest ones when it fills none."""
    return share > min(0.5, 0.6 * float(share.max()))
