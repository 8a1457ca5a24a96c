"""Findings of the mediastinum: nodes, a hernia, calcified aortic wall."""

import numpy as np

from ctflow_fed.ct.phantom.canvas import Point
from ctflow_fed.ct.phantom.courses import aorta, bronchi
from ctflow_fed.ct.phantom.geometry import ellipsoid
from ctflow_fed.ct.phantom.plan import Finding
from ctflow_fed.ct.phantom.scene import Scene, mesh

__all__ = ["aortic_calcification", "hernia", "nodes"]

STATIONS: dict[str, tuple[Point, ...]] = {
    "paratracheal": ((26, 2, -21), (44, 4, -19), (12, -2, -18)),
    "subcarinal": ((-26, 27, 3), (-40, 32, 12), (-30, 30, -10)),
    "hilar": ((-30, 16, -52), (-18, 22, -44), (-42, 24, -50)),
}
"""Where the nodes of a station lie, from the carina; the first is the largest."""


def nodes(scene: Scene, finding: Finding) -> None:
    """A large lymph node and two smaller ones of the same station."""
    airway = np.zeros_like(scene.cage)
    for side in (-1, 1):
        points, radii = bronchi(scene.chest, side)
        for share, box in scene.tube_shares(points, [r + 1.5 for r in radii]):
            np.maximum(airway[box.index], share, out=airway[box.index])
    for place, part in zip(STATIONS[finding.kind], (1.0, 0.62, 0.55), strict=True):
        long = finding.size_mm / 2 * part
        centre = scene.chest.point(*place)
        box = scene.around(centre, long + 3)
        shape = ellipsoid(mesh(box), centre, (long, 0.75 * long, 0.7 * long))
        share = scene.canvas.cover(shape) * (1 - airway[box.index])
        scene.show(finding.name, box, share, 46 + 0.15 * scene.patient.contrast)


def hernia(scene: Scene, finding: Finding) -> None:
    """A part of the stomach with gas, behind the heart and before the spine."""
    canvas, c = scene.canvas, scene.chest
    radius = finding.size_mm / 2.2
    level = c.heart_middle[0] - 28
    front = float(c.spine(level)) - 30 * c.size
    centre = (level, front - 0.5 * radius, 0.0)
    box = scene.around(centre, radius * 1.2)
    at = mesh(box)
    behind = at[1] - (c.spine(at[0]) - 17 * c.size)
    sac = ellipsoid(at, centre, (radius, 0.78 * radius, 1.1 * radius))
    inner = np.maximum(sac, behind)
    free = 1 - _aorta_share(scene)[box.index]
    scene.show(finding.name, box, canvas.cover(inner) * free, 42)
    canvas.paint(box, canvas.cover(inner + 4) * free, 18)
    gas = np.maximum(inner + 4, at[1] - centre[1] + 0.1 * radius)
    canvas.paint(box, canvas.cover(gas) * free, -940)


def _aorta_share(scene: Scene) -> np.ndarray:
    """The share of each voxel that is aorta."""
    whole = np.zeros_like(scene.cage)
    points, radii = aorta(scene.chest)
    for share, box in scene.tube_shares(points, [r + 1.2 for r in radii]):
        np.maximum(whole[box.index], share, out=whole[box.index])
    return whole


def aortic_calcification(scene: Scene, finding: Finding) -> None:
    """Plaques in the wall of the arch or of the descending aorta."""
    points, radii = aorta(scene.chest)
    span = (4.0, 7.9) if finding.kind == "arch" else (8.0, 11.9)
    rng = scene.patient.stream("plaques")
    for _ in range(9):
        place = float(rng.uniform(*span))
        i = int(place)
        start, stop = np.array(points[i]), np.array(points[i + 1])
        centre = start + (place - i) * (stop - start)
        away = np.cross(stop - start, rng.normal(size=3))
        radius = radii[i] + (place - i) * (radii[i + 1] - radii[i])
        spot = centre + radius * away / np.linalg.norm(away)
        _paint_plaque(scene, finding, spot, float(rng.uniform(2.0, 3.6)))


def _paint_plaque(
    scene: Scene, finding: Finding, spot: np.ndarray, radius: float
) -> None:
    """One plaque."""
    centre = (float(spot[0]), float(spot[1]), float(spot[2]))
    box = scene.around(centre, radius + scene.canvas.edge)
    z, y, x = (a - c for a, c in zip(mesh(box), centre, strict=True))
    distance = np.sqrt(z * z + y * y + x * x)
    scene.show(finding.name, box, scene.canvas.thin(distance, radius, 3), 850)
