"""The chest wall: skin, fat, muscle, ribs, spine, sternum, shoulder girdle, table."""

import numpy as np

from ctflow_fed.ct.phantom.canvas import Box, noise
from ctflow_fed.ct.phantom.geometry import blend, ramp
from ctflow_fed.ct.phantom.scene import Scene, mesh

__all__ = ["paint_bones", "paint_table", "paint_wall"]

FAT = -102.0
MUSCLE = 52.0


def paint_table(scene: Scene) -> None:
    """The curved table under the patient."""
    canvas, p = scene.canvas, scene.patient
    top = p.depth * 1.0 + 24 + p.fat * 0.7 + 14
    box = canvas.box((-1e9, top - 40, -1e9), (1e9, top + 40, 1e9))
    below = box.y - (top - box.x**2 / 900.0) - 1.0
    below = np.broadcast_to(below, (box.z.size, box.y.size, box.x.size))
    inside = np.maximum(np.maximum(-below, below - 22), np.abs(box.x) - 225)
    canvas.paint(box, canvas.cover(inside), -930)
    canvas.paint(box, canvas.thin(np.abs(below), 1.0, 1), -150)
    canvas.paint(box, canvas.thin(np.abs(below - 22), 1.0, 1), -150)


def paint_wall(scene: Scene) -> None:
    """Skin, fat under it, the muscles on the rib cage and of the shoulders."""
    canvas, p, chest = scene.canvas, scene.patient, scene.chest
    box = canvas.whole()
    at = mesh(box)
    body = chest.body(at)
    canvas.paint(box, canvas.cover(body), 0)
    fat = FAT + 10 * noise(p.stream("fat"), box, 14)
    canvas.paint(box, canvas.cover(body + 2.0), fat)
    muscle = _muscle(scene, box, body)
    texture = MUSCLE + 5 * noise(p.stream("muscle"), box, 9)
    share = canvas.cover(muscle)
    streaks = ramp(noise(p.stream("septa"), box, 17), 0.7, 1.3)
    canvas.paint(box, share * (1 - 0.3 * streaks), texture)
    if p.sex == "F":
        _paint_glands(scene)


def _muscle(scene: Scene, box: Box, body: np.ndarray) -> np.ndarray:
    """The distance to the outer surface of the muscles."""
    p, s = scene.patient, scene.chest.size
    z, y, x = mesh(box)
    t = z / p.lung
    side = np.abs(x)
    pectoral = 13 * ramp(t, 0.3, 0.6) * ramp(y, -10, -50) * ramp(side, 12, 35)
    lateral = 7 * ramp(side, 80, 120) * ramp(y, -20, 40)
    erector = (
        26
        * ramp(side, 84 * s, 28 * s)
        * ramp(y, 50, 78)
        * (0.75 + 0.25 * ramp(side, 0, 14))
    )
    girdle = 28 * ramp(t, 0.35, 0.8) * ramp(y, -30, 10) * ramp(side, 40, 90)
    thick = 11 + (pectoral + lateral + erector + girdle) * p.muscle
    wall = scene.cage - thick
    start = 1.0 - 0.3 * ramp(np.hypot(side, 1.3 * (y - 15)), 60, 185)
    shoulder = np.maximum(body + 0.7 * p.fat + 3, (start - t) * 90)
    whole = np.minimum(wall, shoulder)
    return np.asarray(np.maximum(whole, body + 2 + 0.3 * p.fat))


def _paint_glands(scene: Scene) -> None:
    """The glandular tissue of the breasts."""
    p, s, canvas = scene.patient, scene.chest.size, scene.canvas
    large = 26 + 0.9 * p.fat
    for side in (-1, 1):
        centre = (0.27 * p.lung, -(p.depth + 12) * 0.95, side * 74 * s)
        low = (centre[0] - large, centre[1] - large, centre[2] - large)
        high = (centre[0] + large, centre[1] + large, centre[2] + large)
        box = canvas.box(low, high)
        if box.empty:
            continue
        z, y, x = (a - c for a, c in zip(mesh(box), centre, strict=True))
        ball = np.sqrt(z * z + y * y + x * x) - 0.62 * large
        lace = ramp(noise(p.stream("gland", side), box, 11), -0.4, 0.5)
        share = canvas.cover(ball) * lace * max(0.2, 1.1 - p.age / 90)
        outside = canvas.cover(12 * p.muscle + 8 - scene.cage[box.index])
        canvas.paint(box, share * outside, 25)


def paint_bones(scene: Scene) -> None:
    """Ribs, spine, sternum, clavicles and shoulder blades."""
    _paint_ribs(scene)
    _paint_blades(scene)
    _paint_clavicles(scene)
    _paint_sternum(scene)
    _paint_spine(scene)


def _paint_bone(scene: Scene, box: Box, depth: np.ndarray, cortex: float) -> None:
    """Paint a bone of signed distance ``depth``: a dense shell, marrow inside."""
    canvas, p = scene.canvas, scene.patient
    canvas.paint(box, canvas.cover(depth), 620 * p.bone)
    if cortex < 2.5 * canvas.edge or canvas.edge < 4:
        inner = canvas.cover(depth + max(cortex, 0.45 * canvas.edge))
        canvas.paint(box, inner, 190 * p.bone)


def _paint_ribs(scene: Scene) -> None:
    """Twelve pairs of ribs that slope down to the front, and their cartilage."""
    canvas, p, s = scene.canvas, scene.patient, scene.chest.size
    shell = np.flatnonzero(np.abs(scene.cage - 6) < 9 + canvas.edge)
    iz, iy, ix = np.unravel_index(shell, scene.cage.shape)
    z, y, x = canvas.z[iz], canvas.y[iy], canvas.x[ix]
    back = y - scene.chest.axis(z)
    turn = np.arctan2(np.abs(x) / p.width, back / p.depth).astype(np.float32)
    radial = scene.cage.ravel()[shell] - 6.0
    flat = canvas.hu.reshape(-1)
    step = (p.lung + 92 * s) / 11.6
    for rib in range(12):
        height, end, front = _rib(rib, step, p.lung, s)
        line = height - front * (1 - np.cos(np.minimum(turn, 2.2))) / 1.59
        line = line + np.maximum(turn - 2.2, 0) * 38 * s * min(rib, 7) / 7
        off = (z - line) * 0.86
        near = np.flatnonzero(
            (np.abs(off) < 8 + canvas.edge) & (turn < end) & (np.abs(x) > 24 * s)
        )
        depth = np.hypot(off[near], radial[near] * 1.45) - 5.7 * s
        share = canvas.cover(depth)
        cartilage = ramp(turn[near], 2.25, 2.4)
        inner = canvas.cover(depth + max(2.2, 0.4 * canvas.edge))
        bone = (560 - 370 * inner) * p.bone
        value = bone + (95 + 0.6 * p.age - bone) * cartilage
        places = shell[near]
        flat[places] += share * (value - flat[places])


def _rib(rib: int, step: float, lung: float, s: float) -> tuple[float, float, float]:
    """Height at the spine, last angle and fall to the front of a rib."""
    height = lung - 2 - rib * step
    end = (3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 2.8, 2.7, 2.55, 1.7, 1.2)[rib]
    fall = (28, 50, 66, 78, 86, 92, 96, 98, 96, 88, 50, 30)[rib] * s
    return height, end, fall


def _paint_blades(scene: Scene) -> None:
    """The shoulder blades behind the upper ribs, and the heads of the upper arms."""
    canvas, p, s = scene.canvas, scene.patient, scene.chest.size
    box = canvas.box((0.42 * p.lung, -40, -1e9), (1.1 * p.lung, 1e9, 1e9))
    if box.empty:
        return
    z, y, x = mesh(box)
    side = np.abs(x)
    t = np.clip((z / p.lung - 0.5) / 0.5, 0, 1)
    gap = (15 + 8 * t + 0.22 * np.maximum(side - 78 * s, 0)) * p.muscle
    thick = 2.0 + 3.0 * ramp(side, (104 + 30 * t) * s, (124 + 30 * t) * s)
    sheet = np.abs(scene.cage[box.index] - gap) - thick
    inner = (64 - 2 * t) * s - side
    outer = side - (96 + 52 * t) * s
    plate = np.maximum(np.maximum(sheet, inner), np.maximum(outer, 12 - y))
    _paint_bone(scene, box, np.maximum(plate, (0.5 - z / p.lung) * p.lung), 1.2)
    for sign in (-1, 1):
        head = (p.lung * 1.02, 22 * s, sign * 158 * s)
        scene.blob(head, (25 * s, 24 * s, 24 * s), 600 * p.bone)
        scene.blob(head, (22 * s, 21 * s, 21 * s), 170 * p.bone)
        ridge = [
            (p.lung * 0.84, 78 * s, sign * 72 * s),
            (p.lung * 0.98, 66 * s, sign * 128 * s),
        ]
        scene.tube(
            [*ridge, (p.lung * 1.08, 36 * s, sign * 150 * s)],
            [3.5 * s, 5 * s, 6 * s],
            450 * p.bone,
        )


def _paint_clavicles(scene: Scene) -> None:
    """The collar bones, from the manubrium outwards and up."""
    p, s = scene.patient, scene.chest.size
    top = 0.9 * p.lung
    front = float(scene.chest.axis(top)) - 0.52 * p.depth
    for side in (-1, 1):
        points = [
            (top, front - 6 * s, side * 24 * s),
            (top + 10 * s, front - 12 * s, side * 55 * s),
            (top + 22 * s, front + 12 * s, side * 95 * s),
            (top + 30 * s, front + 26 * s, side * 140 * s),
        ]
        scene.tube(points, [7.5, 6, 5.5, 6.5], 560 * p.bone)
        scene.tube(points, [4.5, 3, 2.5, 3.5], 220 * p.bone)


def _paint_sternum(scene: Scene) -> None:
    """Manubrium and body of the sternum, in the front wall."""
    canvas, p, s = scene.canvas, scene.patient, scene.chest.size
    box = canvas.box((0.12 * p.lung, -1e9, -32 * s), (0.92 * p.lung, 20, 32 * s))
    if box.empty:
        return
    z, y, x = mesh(box)
    t = z / p.lung
    half = np.interp(t, [0.12, 0.2, 0.62, 0.7, 0.74, 0.9], [6, 15, 17, 15, 24, 29])
    sheet = np.abs(scene.cage[box.index] - 7) - 5.5 * s
    across = np.abs(x) - half.astype(np.float32) * s
    ends = np.maximum(0.14 - t, t - 0.91) * p.lung
    joint = np.abs(t - 0.72) * p.lung - 1.5
    front = y - scene.chest.axis(z) + 20
    plate = np.maximum(-blend(-sheet, -across, 9), np.maximum(ends, front))
    _paint_bone(scene, box, np.maximum(plate, -joint), 1.6)


def _paint_spine(scene: Scene) -> None:
    """Vertebral bodies with discs, arches, processes, and the canal."""
    canvas, p, s = scene.canvas, scene.patient, scene.chest.size
    reach = 75 * s
    box = canvas.box((-1e9, 20 * s, -reach), (1e9, 150 * s, reach))
    z, y, x = mesh(box)
    back = y - scene.chest.spine(z)
    step = (p.lung + 92 * s) / 11.6
    phase = (np.mod(z - p.lung + 2 + step / 2, step) - step / 2).astype(np.float32)
    side = np.abs(x)
    wide = (16.5 + 2.5 * ramp(z, 0.8 * p.lung, -60)) * s
    waist = 1.6 * s * (1 - (phase / (step / 2)) ** 2)
    ring = (side / wide) ** 2.4 + (np.abs(back) / (14.5 * s)) ** 2.4
    ring = np.maximum(ring, 1e-4) ** np.float32(1 / 2.4)
    body = (ring - 1) * 15 * s + waist
    disc = np.abs(phase) - (step / 2 - 2.4 * s)
    canvas.paint(box, canvas.cover(body + 1), 75)
    _paint_bone(scene, box, np.maximum(body, disc), 1.5)
    canal = np.hypot(x, (back - 23 * s) * 1.1) - 8 * s
    arch = np.maximum(canal - 4.5 * s, np.abs(phase + 1) - 8.5 * s)
    slant = phase + 0.55 * np.maximum(back - 28 * s, 0)
    spinous = np.maximum(np.hypot(x * 1.6, slant * 0.55) - 4.2 * s, back - 58 * s)
    spinous = np.maximum(spinous, 28 * s - back)
    rise = np.hypot(back - (19 + 0.5 * side / s) * s, phase - 3) - 4.8 * s
    transverse = np.maximum(rise, side - 33 * s)
    bone = np.minimum(np.minimum(arch, spinous), transverse)
    _paint_bone(scene, box, bone, 1.8)
    canvas.paint(box, canvas.cover(canal), -20)
    cord = np.hypot(x / 1.15, back - 23 * s) - 4.8 * s
    canvas.paint(box, canvas.cover(cord), 38)
