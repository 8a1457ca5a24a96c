"""What lies under the diaphragm: liver, stomach with gas, spleen, fat."""

import numpy as np

from ctflow_fed.ct.phantom.canvas import noise
from ctflow_fed.ct.phantom.geometry import ellipsoid, ramp
from ctflow_fed.ct.phantom.scene import Scene, mesh

__all__ = ["paint_abdomen"]


def paint_abdomen(scene: Scene) -> None:
    """Fill the rib cage below the diaphragm."""
    canvas, p, s, chest = scene.canvas, scene.patient, scene.chest.size, scene.chest
    box = canvas.box((-1e9, -1e9, -1e9), (14, 1e9, 1e9))
    if box.empty:
        return
    z, y, x = at = mesh(box)
    cage = scene.cage[box.index]
    under = np.maximum(z - chest.diaphragm(y, x), cage)
    canvas.paint(
        box, canvas.cover(under), -98 + 6 * noise(p.stream("omentum"), box, 12)
    )
    shell = np.maximum(under, -under - 2.5)
    canvas.paint(box, canvas.cover(shell), 48)
    inner = under + 2.0
    enhanced = 0.35 * p.contrast
    liver = np.maximum(inner, _liver_edge(scene, at))
    texture = 56 + enhanced + 4 * noise(p.stream("liver"), box, 8)
    canvas.paint(box, canvas.cover(liver), texture)
    stomach = np.maximum(
        inner + 2, ellipsoid(at, (-46 * s, -18 * s, 62 * s), (48 * s, 52 * s, 42 * s))
    )
    stomach = np.maximum(stomach, 4 - liver)
    canvas.paint(box, canvas.cover(stomach), 40)
    content = stomach + 4
    canvas.paint(box, canvas.cover(content), 22)
    level = y - (-18 * s - 52 * s + 1.7 * p.gas)
    canvas.paint(box, canvas.cover(np.maximum(content, level)), -960)
    spleen = ellipsoid(at, (-48 * s, 50 * s, 92 * s), (42 * s, 44 * s, 30 * s))
    spleen = np.maximum(
        np.maximum(inner + 1, spleen),
        -ellipsoid(at, (-50 * s, 34 * s, 62 * s), (60, 40, 26)),
    )
    canvas.paint(
        box, canvas.cover(np.maximum(spleen, 3 - stomach)), 50 + enhanced * 1.2
    )
    crus = np.maximum(
        np.abs(np.abs(x - 4) - 14 * s) - 5 * s,
        np.abs(y - (chest.spine(z) - 18 * s)) - 12 * s,
    )
    canvas.paint(box, canvas.cover(np.maximum(crus, inner)), 50)


def _liver_edge(
    scene: Scene, at: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> np.ndarray:
    """The left and rear border of the liver."""
    z, y, x = at
    s = scene.chest.size
    left = x - (18 - 0.75 * (y + 10) + 0.22 * (z + 40)) * s
    rear = (y - 62 * s) + 0.25 * x + 4 * np.sin(x / 23)
    hilum = 14 - np.hypot(x + 18 * s, y - 26 * s) * 0.9 + 0.12 * (z + 40)
    gap = 24 * s - np.hypot(x, (y - scene.chest.spine(z)) * 0.9)
    border = np.maximum(
        np.maximum(left, rear), np.maximum(hilum - 60 * ramp(z, -58, -30), gap)
    )
    return np.asarray(border, dtype=np.float32)
