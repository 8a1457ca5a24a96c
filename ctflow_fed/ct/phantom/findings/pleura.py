"""Findings of the pleura and under it: effusion, apical scars."""

import numpy as np

from ctflow_fed.ct.phantom.canvas import noise
from ctflow_fed.ct.phantom.findings.place import flood, sides_of
from ctflow_fed.ct.phantom.geometry import ramp
from ctflow_fed.ct.phantom.lungs import points_in_lung
from ctflow_fed.ct.phantom.plan import Finding
from ctflow_fed.ct.phantom.scene import Scene

__all__ = ["effusion", "fibrosis"]


def effusion(scene: Scene, finding: Finding) -> None:
    """Free fluid behind the lung of a lying patient, thickest at the bottom."""
    canvas, p = scene.canvas, scene.patient
    box = canvas.whole()
    top = p.lung * (0.45 + 0.008 * finding.size_mm)
    behind = ramp(box.y - scene.chest.axis(box.z), 0.0, 0.75 * p.depth)
    thick = finding.size_mm * behind * ramp(box.z, top, 0.2 * p.lung)
    layer = -scene.cage - thick
    share = canvas.cover(layer) * (thick > 1)
    for side in sides_of(finding):
        half = share * ((box.x < 0) if side == "right" else (box.x > 0))
        flood(scene, box, finding.name, half, 12)
        scene.lung = scene.lung * (1 - half)


def fibrosis(scene: Scene, finding: Finding) -> None:
    """Bands and a thick pleura at the apex."""
    canvas, p = scene.canvas, scene.patient
    box = canvas.box((0.6 * p.lung, -1e9, -1e9), (1.1 * p.lung, 1e9, 1e9))
    if box.empty:
        return
    rough = 3.5 * noise(p.stream("cap"), box, 11)
    cap = np.maximum(-scene.cage[box.index] - 7 + rough, (0.84 * p.lung - box.z) * 0.5)
    for side in sides_of(finding):
        sign = -1 if side == "right" else 1
        here = canvas.cover(cap) * (sign * box.x > 0)
        flood(scene, box, finding.name, here, 25)
        _paint_bands(scene, finding, sign)


def _paint_bands(scene: Scene, finding: Finding, sign: int) -> None:
    """Scars that run from the apex towards the hilum."""
    p, s = scene.patient, scene.chest.size
    hub = np.array(scene.chest.point(10, 10, 38 * sign))
    tips = points_in_lung(scene, sign, 160, 3.0, "scar")
    tips = tips[np.argsort(-tips[:, 0])][2:26:3]
    reach = p.stream("scar", sign).uniform(0.35, 0.6, len(tips))
    for tip, part in zip(tips, reach, strict=True):
        end = tip + part * (hub - tip)
        bend = (tip + end) / 2 + np.array([0, 4, 4 * sign]) * s
        points = [(float(q[0]), float(q[1]), float(q[2])) for q in (tip, bend, end)]
        for share, box in scene.tube_shares(points, [3.4, 2.4, 1.2]):
            scene.show(finding.name, box, share * scene.lung[box.index], 0)
