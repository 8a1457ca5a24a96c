"""Findings of the whole lung: emphysema, mosaic attenuation, septal thickening."""

import numpy as np

from ctflow_fed.ct.phantom.canvas import Box, noise
from ctflow_fed.ct.phantom.findings.place import tissue_share
from ctflow_fed.ct.phantom.geometry import ramp
from ctflow_fed.ct.phantom.lungs import points_in_lung
from ctflow_fed.ct.phantom.plan import Finding
from ctflow_fed.ct.phantom.scene import Scene

__all__ = ["emphysema", "mosaic", "septa"]


def emphysema(scene: Scene, finding: Finding) -> None:
    """Holes without walls, most in the upper lobes, and some bullae."""
    canvas, p = scene.canvas, scene.patient
    box = canvas.whole()
    rng = p.stream("emphysema")
    upper = ramp(box.z, 0.25 * p.lung, 0.75 * p.lung)
    holes = noise(rng, box, 12) + 0.6 * noise(rng, box, 6)
    share = ramp(holes, 0.9 - 1.1 * upper, 1.5 - 1.1 * upper) * scene.lung
    spared = tissue_share(canvas.hu, share)
    canvas.paint(box, spared, -1000)
    scene.mark(finding.name, box, spared)
    for side in (-1, 1):
        tips = points_in_lung(scene, side, 120, 6.0, "bulla")
        high = tips[np.argsort(-tips[:, 0])][:18]
        for tip, radius in zip(high, rng.uniform(6, 14, len(high)), strict=True):
            _paint_bulla(scene, finding, tip, float(radius))


def _paint_bulla(
    scene: Scene, finding: Finding, centre: np.ndarray, radius: float
) -> None:
    """A round hole with a thin wall."""
    at = (float(centre[0]), float(centre[1]), float(centre[2]))
    box = scene.around(at, radius + 3)
    z, y, x = (a - c for a, c in zip((box.z, box.y, box.x), at, strict=True))
    distance = np.sqrt(z * z + y * y + x * x) - radius
    share = scene.canvas.cover(distance) * scene.lung[box.index]
    wall = scene.canvas.thin(np.abs(distance), 0.5, 1) * scene.lung[box.index]
    scene.canvas.paint(box, wall, -500)
    scene.show(finding.name, box, share, -1005)


def mosaic(scene: Scene, finding: Finding) -> None:
    """Geographic patches: some too dark, the others too bright."""
    canvas = scene.canvas
    box = canvas.whole()
    patches = noise(scene.patient.stream("mosaic"), box, 34)
    dark = ramp(patches, -0.05, 0.15)
    lung = tissue_share(canvas.hu, scene.lung)
    view = canvas.hu[box.index]
    view += lung * (105 * (1 - dark) - 65 * dark)
    scene.mark(finding.name, box, scene.lung * dark)


def septa(scene: Scene, finding: Finding) -> None:
    """Thickened walls between the lobules: polygons, most at the bases and edges."""
    canvas, p = scene.canvas, scene.patient
    low = canvas.box((-1e9, -1e9, -1e9), (0.62 * p.lung, 1e9, 1e9))
    if low.empty:
        return
    lung = scene.lung[low.index]
    places = np.flatnonzero(lung > 0.05)
    walls = np.full(lung.size, 1e3, np.float32)
    walls[places] = _walls(scene, low, places)
    weight = ramp(low.z, 0.62 * p.lung, 0.3 * p.lung) * ramp(
        scene.cage[low.index], -60, -18
    )
    share = (
        canvas.thin(walls.reshape(lung.shape), 1.0, 1) * lung * (0.15 + 0.85 * weight)
    )
    scene.show(finding.name, low, share * ramp(low.z, 0.62 * p.lung, 0.5 * p.lung), 20)


def _walls(scene: Scene, box: Box, places: np.ndarray) -> np.ndarray:
    """The distance to the walls of a random mosaic of cells of 18 mm."""
    cell, count = 18.0, 17
    shifts = scene.patient.stream("septa").uniform(0.1, 0.9, (count, count, count, 3))
    index = np.unravel_index(places, (box.z.size, box.y.size, box.x.size))
    axes = (box.z.ravel(), box.y.ravel(), box.x.ravel())
    at = np.stack([a[i] for a, i in zip(axes, index, strict=True)], 1) / cell
    home = np.floor(at).astype(int)
    first = np.full(len(at), 9.0, np.float32)
    second = first.copy()
    for step in np.ndindex(3, 3, 3):
        near = home + np.array(step) - 1
        a, b, c = (near % count).T
        away = np.linalg.norm(near + shifts[a, b, c] - at, axis=1).astype(np.float32)
        second = np.minimum(second, np.maximum(first, away))
        first = np.minimum(first, away)
    return np.asarray((second - first) * cell / 2)
