"""Findings of the heart: size, fluid around it, calcified coronary arteries."""

import numpy as np

from ctflow_fed.ct.phantom.courses import aorta
from ctflow_fed.ct.phantom.geometry import ramp
from ctflow_fed.ct.phantom.mediastinum import coronaries
from ctflow_fed.ct.phantom.plan import Finding
from ctflow_fed.ct.phantom.scene import Scene, mesh

__all__ = ["cardiomegaly", "coronary_calcification", "effusion"]


def cardiomegaly(scene: Scene, finding: Finding) -> None:
    """Mark the heart, which the anatomy has already drawn too large."""
    box = scene.around(scene.chest.heart_middle, 110 * scene.patient.heart)
    share = scene.canvas.cover(scene.chest.heart(mesh(box)))
    above = scene.chest.diaphragm(box.y, box.x) - box.z
    inside = scene.canvas.cover(np.maximum(above - 7, scene.cage[box.index] + 3))
    scene.mark(finding.name, box, share * inside)


def effusion(scene: Scene, finding: Finding) -> None:
    """A shell of fluid in the pericardium, thicker below and behind."""
    canvas, c = scene.canvas, scene.chest
    box = scene.around(c.heart_middle, 110 * scene.patient.heart + finding.size_mm)
    at = mesh(box)
    middle = c.heart_middle
    low = (
        ramp(box.z - middle[0], 20, -35) * 0.5 + ramp(box.y - middle[1], -20, 35) * 0.5
    )
    outer = c.heart(at) - finding.size_mm * (0.35 + 0.65 * low)
    limits = np.maximum(
        scene.cage[box.index] + 5, c.diaphragm(box.y, box.x) - box.z - 8
    )
    behind = box.y - (c.spine(box.z) - 17 * c.size)
    fluid = np.maximum(np.maximum(outer, limits), np.maximum(1.5 - c.heart(at), behind))
    share = canvas.cover(fluid)
    spared = np.zeros_like(scene.cage)
    points, radii = aorta(c)
    for part, place in scene.tube_shares(points, [r + 1.5 for r in radii]):
        np.maximum(spared[place.index], part, out=spared[place.index])
    share = share * (1 - spared[box.index])
    scene.show(finding.name, box, share, 10)
    view = scene.lung[box.index]
    view *= 1 - share


def coronary_calcification(scene: Scene, finding: Finding) -> None:
    """Plaques along the coronary arteries."""
    courses = coronaries(scene)
    rng = scene.patient.stream("coronary")
    names = ["left", "right"] if "right" in finding.kind else ["left"]
    for name in names:
        points = np.array(courses[name])
        for _ in range(6):
            place = rng.uniform(0.4, len(points) - 1.6)
            i = int(place)
            spot = points[i] + (place - i) * (points[i + 1] - points[i])
            centre = (float(spot[0]), float(spot[1]), float(spot[2]))
            radius = float(rng.uniform(1.8, 3.0))
            box = scene.around(centre, radius + scene.canvas.edge)
            z, y, x = (a - b for a, b in zip(mesh(box), centre, strict=True))
            share = scene.canvas.thin(np.sqrt(z * z + y * y + x * x), radius, 3)
            scene.show(finding.name, box, share, 900)
