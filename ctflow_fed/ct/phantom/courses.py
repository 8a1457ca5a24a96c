"""The courses of the large tubes of the chest: aorta, arteries, veins, bronchi."""

from ctflow_fed.ct.phantom.canvas import Point
from ctflow_fed.ct.phantom.geometry import Chest

__all__ = ["Course", "aorta", "bronchi", "cava", "pulmonary"]

Course = tuple[list[Point], list[float]]
"""The points of a tube and its radius at each."""


def aorta(chest: Chest) -> Course:
    """The aorta from its root over the arch down to the abdomen."""
    at, c = chest.point, chest
    s, spine = c.size, c.spine
    wide = (1 + 0.004 * (chest.patient.age - 50)) * s
    root = c.heart_point(20, 4, -12)
    points = [
        root,
        at(-28, -22, -20),
        at(-4, -24, -22),
        at(16, -18, -16),
        at(29, -4, -5),
    ]
    points += [at(34, 14, 7), at(28, 32, 17), at(12, 43, 23), at(-8, 46, 24)]
    for level in (-35, -70, -105, -140, -180):
        z = at(level, 0, 0)[0]
        y = float(spine(z)) - 22 * s
        points.append((z, y, (24 - 0.14 * (-level - 8)) * s))
    radii = [16, 16.5, 16, 15, 14, 13.5, 13, 12.5, 12, 11.5, 11, 10.5, 10, 9.5]
    return points, [r * wide for r in radii]


def bronchi(chest: Chest, side: int) -> Course:
    """Main, lobar and lower-lobe bronchus of the right (-1) or left (1) lung."""
    at, s = chest.point, chest.size
    if side < 0:
        points = [at(0, 24, -2), at(-16, 27, -18), at(-27, 29, -34), at(-52, 36, -42)]
    else:
        points = [at(0, 24, -2), at(-16, 28, 16), at(-32, 31, 38), at(-58, 40, 46)]
    return points, [7.5 * s, 6.8 * s, 6.0 * s, 4.2 * s]


def cava(chest: Chest) -> Course:
    """The superior vena cava, from the brachiocephalic veins to the right atrium."""
    at, s = chest.point, chest.size
    points = [at(78, -6, -36), at(40, -20, -34), at(8, -20, -35), at(-30, -8, -38)]
    points.append(chest.heart_point(24, 6, -42))
    return points, [7 * s, 9 * s, 9.5 * s, 10 * s, 11 * s]


def pulmonary(chest: Chest) -> list[Course]:
    """The pulmonary trunk and its right and left artery."""
    at, s, c = chest.point, chest.size, chest
    fork = at(-18, -6, 22)
    trunk = [c.heart_point(14, -30, 14), at(-34, -28, 22), fork]
    right = [fork, at(-22, 4, 0), at(-24, 8, -24), at(-28, 16, -42)]
    left = [fork, at(-10, 12, 34), at(-8, 28, 44), at(-28, 40, 52)]
    return [
        (trunk, [15 * s, 14.5 * s, 13.5 * s]),
        (right, [12 * s, 11 * s, 10.5 * s, 8.5 * s]),
        (left, [12 * s, 11 * s, 10 * s, 7.5 * s]),
    ]
