"""Findings with a place in one lobe: nodule, opacity, consolidation, atelectasis."""

import numpy as np

from ctflow_fed.ct.phantom.canvas import Box, Point, noise
from ctflow_fed.ct.phantom.findings.place import (
    flood,
    place_in_lobe,
    sides_of,
    tissue_share,
)
from ctflow_fed.ct.phantom.geometry import ramp
from ctflow_fed.ct.phantom.lungs import bronchial_tree
from ctflow_fed.ct.phantom.plan import Finding
from ctflow_fed.ct.phantom.scene import Scene, mesh

__all__ = ["atelectasis", "consolidation", "nodule", "opacity"]


def nodule(scene: Scene, finding: Finding) -> None:
    """A solid ball, lobulated when it is large."""
    canvas, radius = scene.canvas, finding.size_mm / 2
    centre = place_in_lobe(scene, finding, finding.side, radius + 5)
    box = scene.around(centre, radius + 4)
    z, y, x = (a - c for a, c in zip(mesh(box), centre, strict=True))
    lobes = noise(scene.patient.stream("nodule"), box, 9) * min(2.0, 0.08 * radius)
    distance = np.sqrt(z * z + y * y + x * x) + lobes
    scene.show(finding.name, box, canvas.thin(distance, radius, 3), 42)


def _cloud(
    scene: Scene, finding: Finding, side: str, centre: Point
) -> tuple[Box, np.ndarray]:
    """An uneven region of the size of a finding: the distance to its surface."""
    radius = finding.size_mm / 2
    box = scene.around(centre, radius * 1.3)
    z, y, x = (a - c for a, c in zip(mesh(box), centre, strict=True))
    rng = scene.patient.stream("cloud", finding.name, side)
    uneven = 7 * noise(rng, box, 25) + 2 * noise(rng, box, 9)
    return box, np.sqrt((1.15 * z) ** 2 + y * y + x * x) - radius + uneven


def opacity(scene: Scene, finding: Finding) -> None:
    """Ground glass: a veil through which the vessels are still seen."""
    for side in sides_of(finding):
        centre = place_in_lobe(scene, finding, side, 0.3 * finding.size_mm)
        box, distance = _cloud(scene, finding, side, centre)
        share = ramp(distance, 5, -7) * scene.lung[box.index]
        veil = tissue_share(scene.canvas.hu[box.index], share)
        scene.canvas.paint(box, 0.62 * veil, -380)
        scene.mark(finding.name, box, share)


def consolidation(scene: Scene, finding: Finding) -> None:
    """Airless lung up to the fissure, with the bronchi still open in it."""
    canvas = scene.canvas
    centre = place_in_lobe(scene, finding, finding.side, 0.3 * finding.size_mm)
    box, distance = _cloud(scene, finding, finding.side, centre)
    lobe = scene.chest.lobe(mesh(box), finding.side, finding.lobe)
    share = canvas.cover(np.maximum(distance, lobe))
    texture = 38 + 6 * noise(scene.patient.stream("pus"), box, 8)
    flood(scene, box, finding.name, share, texture)
    whole = np.zeros_like(scene.cage)
    whole[box.index] = share * scene.lung[box.index]
    for twig in bronchial_tree(scene, -1 if finding.side == "right" else 1):
        if twig.load >= 2:
            radius = 0.7 + 0.25 * twig.load ** (1 / 2)
            scene.tube([twig.start, twig.stop], [radius] * 2, -900, within=whole)


def atelectasis(scene: Scene, finding: Finding) -> None:
    """A plate of collapsed lung, near the pleura."""
    canvas, radius = scene.canvas, finding.size_mm / 2
    centre = place_in_lobe(scene, finding, finding.side, 8)
    box = scene.around(centre, radius + 4)
    rng = scene.patient.stream("atelectasis")
    tilt, turn = rng.uniform(0.2, 0.6), rng.uniform(-0.4, 0.4)
    z, y, x = (a - c for a, c in zip(mesh(box), centre, strict=True))
    off = z + tilt * y + turn * x + 0.006 * (x * x + y * y) - 2
    sheet = canvas.thin(np.abs(off) / float(np.hypot(1, np.hypot(tilt, turn))), 3.2, 1)
    disc = canvas.cover(np.sqrt(y * y + x * x + 0 * z) - radius)
    scene.show(finding.name, box, sheet * disc * scene.lung[box.index], 15)
