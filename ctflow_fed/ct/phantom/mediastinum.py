"""Heart, great vessels, airways and oesophagus between the lungs."""

import numpy as np

from ctflow_fed.ct.phantom.canvas import Point, noise
from ctflow_fed.ct.phantom.courses import Course, aorta, bronchi, cava, pulmonary
from ctflow_fed.ct.phantom.geometry import ellipsoid
from ctflow_fed.ct.phantom.scene import Scene, mesh

__all__ = ["coronaries", "paint_airways", "paint_fat", "paint_mediastinum"]


def coronaries(scene: Scene) -> dict[str, list[Point]]:
    """The courses of the coronary arteries on the heart."""
    c = scene.chest
    start = c.heart_point(20, -10, -2)
    left = _on_heart(
        scene, [(20, -28, 22), (8, -44, 34), (-8, -50, 44), (-24, -42, 54)]
    )
    right = _on_heart(scene, [(14, -34, -22), (0, -32, -32), (-16, -24, -34)])
    bend = _on_heart(scene, [(18, 0, 50), (8, 18, 56), (-4, 30, 50)])
    return {
        "left": [start, *left],
        "right": [start, *right],
        "circumflex": [start, *bend],
    }


def _on_heart(scene: Scene, offsets: list[tuple[float, float, float]]) -> list[Point]:
    """Push points along rays from the middle of the heart onto its surface."""
    middle = np.array(scene.chest.heart_middle)
    found: list[Point] = []
    for offset in offsets:
        ray = np.array(offset) / np.linalg.norm(offset)
        steps = np.arange(20, 90, 0.5)
        line = middle[:, None] + ray[:, None] * steps
        depth = scene.chest.heart((line[0], line[1], line[2]))
        place = middle + ray * (steps[int(np.argmin(np.abs(depth + 1.5)))])
        found.append((float(place[0]), float(place[1]), float(place[2])))
    return found


def paint_fat(scene: Scene) -> None:
    """Fill the rib cage above the diaphragm with fat."""
    canvas, p = scene.canvas, scene.patient
    box = canvas.box((-1e9, -1e9, -1e9), (1e9, 1e9, 1e9))
    above = scene.chest.diaphragm(box.y, box.x) - box.z
    inside = canvas.cover(np.maximum(scene.cage, above - 3))
    canvas.paint(box, inside, -96 + 7 * noise(p.stream("mediastinum"), box, 10))


def paint_mediastinum(scene: Scene) -> None:
    """Heart, vessels and oesophagus, over the fat and the lungs."""
    canvas = scene.canvas
    box = canvas.whole()
    neck = _inlet(scene)
    canvas.paint(box, canvas.cover(neck) * (1 - scene.lung), 48)
    _paint_vessels(scene)
    _paint_heart(scene)
    _paint_oesophagus(scene)


def _inlet(scene: Scene) -> np.ndarray:
    """The muscles beside the windpipe above the breastbone."""
    z, y, x = mesh(scene.canvas.whole())
    s, top = scene.chest.size, 0.93 * scene.patient.lung
    ring = np.hypot(np.abs(x) - 30 * s, (y - 12 * s) * 0.8) - 13 * s
    return np.maximum(ring, (top - z) * 0.7)


def _paint_heart(scene: Scene) -> None:
    """Pericardium, fat on the heart, muscle and chambers."""
    canvas, p, c = scene.canvas, scene.patient, scene.chest
    h = p.heart
    m = c.heart_middle
    box = canvas.box(
        (m[0] - 75 * h, m[1] - 85 * h, m[2] - 90 * h),
        (m[0] + 75 * h, m[1] + 85 * h, m[2] + 90 * h),
    )
    if box.empty:
        return
    at = mesh(box)
    limit = np.maximum(scene.cage[box.index] + 3, c.diaphragm(box.y, box.x) - box.z - 7)
    heart = np.maximum(c.heart(at), limit)
    sac = np.abs(heart - 1.2)
    canvas.paint(box, canvas.cover(heart - 1.5), -70)
    canvas.paint(box, canvas.thin(sac, 0.8, 1), 40)
    wall = 48 + 0.35 * p.contrast
    lumpy = 2.2 * noise(p.stream("epicardium"), box, 16)
    groove = 3.5 - np.abs(_along_axis(scene, at) + 24 * h)
    muscle = heart + 3.2 + lumpy + np.maximum(groove, 0) * 1.6
    canvas.paint(box, canvas.cover(muscle), wall)
    left = ellipsoid(
        at, c.heart_point(-2, 6, 16), (25 * h, 23 * h, 41 * h), c.heart_axis
    )
    right = ellipsoid(
        at, c.heart_point(-10, -18, 4), (27 * h, 20 * h, 38 * h), c.heart_axis
    )
    septum = ellipsoid(
        at, c.heart_point(-2, 6, 16), (34 * h, 32 * h, 50 * h), c.heart_axis
    )
    right = np.maximum(np.maximum(right, -septum), muscle + 3)
    atria = [
        ellipsoid(at, c.heart_point(2, 10, -43), (33 * h, 25 * h, 22 * h)),
        ellipsoid(at, c.heart_point(18, 40, -14), (20 * h, 16 * h, 29 * h)),
    ]
    for chamber in (np.maximum(left, muscle + 6), right, *atria):
        canvas.paint(box, canvas.cover(np.maximum(chamber, muscle + 1)), p.blood - 4)
    for course in coronaries(scene).values():
        scene.tube(course, [1.7 * h] * len(course), p.blood)


def _along_axis(
    scene: Scene, at: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> np.ndarray:
    """How far towards the apex of the heart, from its middle."""
    axis = np.array(scene.chest.heart_axis) / np.linalg.norm(scene.chest.heart_axis)
    middle = scene.chest.heart_middle
    parts = [(a - m) * u for a, m, u in zip(at, middle, axis, strict=True)]
    return np.asarray(parts[0] + parts[1] + parts[2], dtype=np.float32)


def _paint_vessels(scene: Scene) -> None:
    """Aorta and its branches, pulmonary arteries, caval and brachiocephalic veins."""
    at, s, p, c = scene.chest.point, scene.chest.size, scene.patient, scene.chest
    blood, vein = p.blood, p.blood - 0.25 * p.contrast
    top = p.lung + 60
    tubes: list[Course] = [
        (
            [at(30, -8, -8), at(48, -4, -18), at(72, 2, -26), (top, 8, -30)],
            [7, 6.5, 5, 4.5],
        ),
        ([at(33, 8, 4), at(55, 4, 14), at(85, 6, 22), (top, 10, 28)], [5, 4.5, 4, 4]),
        ([at(32, 24, 14), at(60, 24, 24), at(95, 20, 40)], [6, 5, 5]),
    ]
    for points, radii in tubes:
        scene.tube(points, [r * s for r in radii], blood)
    scene.tube(*cava(c), vein)
    crossing = [at(78, -4, 40), at(52, -26, 20), at(40, -26, -14), at(34, -22, -32)]
    scene.tube(crossing, [6.5 * s, 7 * s, 7 * s, 8 * s], vein)
    azygos = [
        at(-2, -8, -32),
        at(6, 12, -28),
        at(2, 36, -14),
        at(-30, 46, -9),
        at(-110, 46, -7),
    ]
    scene.tube(azygos, [4.5 * s, 4.5 * s, 4 * s, 3.5 * s, 3 * s], vein)
    inferior = [
        c.heart_point(-14, 14, -42),
        (-25, 22 * s, -26 * s),
        (-100, 24 * s, -22 * s),
    ]
    scene.tube(inferior, [13 * s, 12 * s, 12 * s], vein)
    for points, radii in pulmonary(c):
        scene.tube(points, radii, blood - 2)
    points, radii = aorta(c)
    scene.tube(points, [r + 1.2 for r in radii], 42)
    scene.tube(points, radii, blood)


def _paint_oesophagus(scene: Scene) -> None:
    """A collapsed tube before the spine, with a little gas in some patients."""
    at, s, p = scene.chest.point, scene.chest.size, scene.patient
    points = [
        at(110, 34, 3),
        at(60, 38, 5),
        at(0, 42, 8),
        at(-40, 46, 8),
        at(-85, 40, 10),
        at(-125, 22, 26),
    ]
    scene.tube(points, [6.5 * s] * 6, 40)
    if p.stream("oesophagus").random() < 0.4:
        scene.tube(points[1:3], [2.2 * s] * 2, -800)


def paint_airways(scene: Scene) -> None:
    """Windpipe and main bronchi: a wall, and air in it."""
    at, s, p = scene.chest.point, scene.chest.size, scene.patient
    trachea = [(p.lung + 70, 6 * s, 0.0), at(60, 14, 1), at(0, 24, -2)]
    wide = (9.0 if p.sex == "M" else 8.0) * s
    courses: list[Course] = [
        (trachea, [wide] * 3),
        bronchi(scene.chest, -1),
        bronchi(scene.chest, 1),
    ]
    for points, radii in courses:
        scene.tube(points, [r + 1.6 for r in radii], 38)
    for points, radii in courses:
        scene.tube(points, radii, -985)
