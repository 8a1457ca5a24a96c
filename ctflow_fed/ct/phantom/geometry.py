"""The surfaces of a chest as signed distances in mm, negative inside.

Every function takes coordinates of any shapes that broadcast, so that the same surface
is painted on a grid and asked about a point.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ctflow_fed.ct.phantom.canvas import Point
from ctflow_fed.ct.phantom.patient import Patient

__all__ = ["Chest", "Coordinates", "blend", "ellipsoid", "ramp"]

Coordinates = tuple[np.ndarray, np.ndarray, np.ndarray]
"""z, y and x of points or of an open mesh, in mm."""


def ramp(
    values: np.ndarray, start: float | np.ndarray, stop: float | np.ndarray
) -> np.ndarray:
    """Rise smoothly from 0 at ``start`` to 1 at ``stop``, which may lie below it."""
    part = np.clip((values - start) / (stop - start), 0, 1)
    return np.asarray(part * part * (3 - 2 * part), dtype=np.float32)


def blend(first: np.ndarray, second: np.ndarray, width: float) -> np.ndarray:
    """The union of two shapes with a fillet of ``width`` mm."""
    part = np.maximum(width - np.abs(first - second), 0) / width
    joined: np.ndarray = np.minimum(first, second) - part * part * (width / 4)
    return joined


def ellipsoid(
    at: Coordinates, centre: Point, radii: Point, axis: Point | None = None
) -> np.ndarray:
    """The distance to an ellipsoid; its last radius lies along ``axis``."""
    z, y, x = (along - middle for along, middle in zip(at, centre, strict=True))
    if axis is None:
        square = (z / radii[0]) ** 2 + (y / radii[1]) ** 2 + (x / radii[2]) ** 2
    else:
        unit = np.asarray(axis) / np.linalg.norm(axis)
        along = (unit[0] * z + unit[1] * y + unit[2] * x).astype(np.float32)
        level = float(np.hypot(unit[1], unit[2]))
        up = (level * z - unit[0] / level * (unit[1] * y + unit[2] * x)).astype(
            np.float32
        )
        aside = ((unit[2] * y - unit[1] * x) / level).astype(np.float32)
        square = (
            (up / radii[0]) ** 2 + (aside / radii[1]) ** 2 + (along / radii[2]) ** 2
        )
    reach = np.sqrt(square)
    return np.asarray((reach - 1) * min(radii), dtype=np.float32)


@dataclass(frozen=True)
class Chest:
    """The surfaces of one patient."""

    patient: Patient

    @cached_property
    def size(self) -> float:
        """All lengths against an average chest."""
        return self.patient.scale

    def point(self, z: float, y: float, x: float) -> Point:
        """A place of the average chest, in this one: z counts from the carina."""
        s = self.size
        return (self.patient.carina + z * s, y * s, x * s)

    def cage(self, at: Coordinates) -> np.ndarray:
        """The inner surface of the rib cage."""
        z, y, x = at
        p = self.patient
        t = np.maximum(z / (p.lung + 4), 0)
        wide = 1 - 0.07 * ramp(z, -10, -90)
        back = y - self.axis(z)
        dent = np.exp(-((x / (37 * self.size)) ** 2))
        deep = p.depth * np.where(back < 0, 1 - 0.13 * dent, 1.07 - 0.1 * dent)
        half = p.width * (1 + p.skew * np.tanh(x / 50))
        section = (np.abs(x) / half) ** 2.2 + (np.abs(back) / deep) ** 2.2
        g = np.maximum(section, 1e-4) ** np.float32(1 / 2.2) / wide
        radius = np.hypot(x, back)
        narrow = np.sqrt(np.maximum(1 - t**3, 0.25))
        distance = (g * g + t**3 - 1) / 2 * radius / g / narrow
        return np.asarray(distance, dtype=np.float32)

    def axis(self, z: np.ndarray | float) -> np.ndarray:
        """How far towards the back the middle of the rib cage lies at a height."""
        t = np.maximum(z / self.patient.lung, 0)
        return np.asarray(6 + 30 * np.minimum(t, 1.2) ** 2 * self.size)

    def spine(self, z: np.ndarray | float) -> np.ndarray:
        """Where the middle of the vertebral bodies lies (y) at a height."""
        t = z / self.patient.lung
        bow = 1 - ((t - 0.45) / 0.6) ** 2
        return np.asarray(
            58 * self.size + self.patient.kyphosis * np.maximum(bow, -1.2)
        )

    def diaphragm(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The height of the diaphragm."""
        s = self.size
        right = self._dome(y, x + 62 * s, 1.0)
        left = self._dome(y, x - 66 * s, -1.0) + self.patient.left_dome
        return np.asarray(right + (left - right) * ramp(x, -30 * s, 40 * s))

    def _dome(self, y: np.ndarray, x: np.ndarray, inward: float) -> np.ndarray:
        """One dome; it falls steeply to the wall and gently to the middle."""
        p, s = self.patient, self.size
        across = np.where(x * inward > 0, x / (125 * s), x / (p.width - 58 * s))
        along = np.where(y > -4, (y + 4) / (p.depth + 14), (y + 4) / (p.depth + 22))
        return np.asarray(-62 * s * (across**2 + along**2) ** 1.15)

    def body(self, at: Coordinates) -> np.ndarray:
        """The skin."""
        z, y, x = at
        p, s = self.patient, self.size
        t = z / p.lung
        shoulder = ramp(t, 0.3, 1.0)
        neck = ramp(t, 1.1, 1.34)
        wide = p.width + 18 * p.muscle + p.fat * 0.9 + 44 * s * shoulder
        wide = wide + (82 * s - wide) * neck
        deep = (p.depth + 24 + p.fat * 0.7) * (1 - 0.17 * shoulder) - 14 * s * neck
        middle = 10 + 16 * ramp(t, 0.2, 1.0)
        tilt = 1 + 0.1 * np.clip((y - middle) / deep, -1, 1) * (1 - shoulder)
        hollow = 6 * np.exp(-((x / 26) ** 2)) * np.where(y > middle, 1.0, 0.5)
        g = (np.abs(x) / (wide * tilt)) ** 2.35
        g = g + (np.abs(y - middle) / (deep - hollow)) ** 2.35
        g = np.maximum(g, 1e-4) ** np.float32(1 / 2.35)
        distance = (g - 1) * np.hypot(x, y - middle) / g
        return np.asarray(self._breasts(at, distance), dtype=np.float32)

    def _breasts(self, at: Coordinates, body: np.ndarray) -> np.ndarray:
        """Add the breasts of a woman."""
        p, s = self.patient, self.size
        if p.sex == "M":
            return body
        large = 26 + 0.9 * p.fat
        centre = (0.28 * p.lung, -(p.depth + 4) * 0.86, 72 * s)
        mirrored = (at[0], at[1], np.abs(at[2]))
        return blend(
            body, ellipsoid(mirrored, centre, (large * 1.3, large, large * 1.25)), 22
        )

    def heart(self, at: Coordinates, grown: float = 0.0) -> np.ndarray:
        """The pericardium, ``grown`` mm outside of the heart."""
        parts = [ellipsoid(at, *self.ventricles(grown)), *self._atria(at, grown)]
        whole = parts[0]
        for part in parts[1:]:
            whole = blend(whole, part, 14)
        return whole

    @property
    def heart_middle(self) -> Point:
        """The middle of the heart; it rests on the diaphragm."""
        h = self.patient.heart
        return (self.patient.left_dome * 0.45 + 36 * h, -24 * h, 20 * h)

    @property
    def heart_axis(self) -> Point:
        """The direction from the base of the heart to its apex."""
        angle = np.deg2rad(self.patient.rotation)
        return (-0.42, -float(np.sin(angle)), float(np.cos(angle)))

    def ventricles(self, grown: float = 0.0) -> tuple[Point, Point, Point]:
        """Centre, radii and axis of both ventricles together."""
        h = self.patient.heart
        return (
            self.heart_point(0, 0, 6),
            (48 * h + grown, 46 * h + grown, 65 * h + grown),
            self.heart_axis,
        )

    def heart_point(self, z: float, y: float, x: float) -> Point:
        """A place relative to the middle of an average heart."""
        h = self.patient.heart
        c = self.heart_middle
        return (c[0] + z * h, c[1] + y * h, c[2] + x * h)

    def _atria(self, at: Coordinates, grown: float) -> list[np.ndarray]:
        """Right and left atrium."""
        h = self.patient.heart
        right = tuple(r * h + grown for r in (36.0, 28.0, 25.0))
        left = tuple(r * h + grown for r in (23.0, 19.0, 32.0))
        return [
            ellipsoid(at, self.heart_point(2, 10, -43), (right[0], right[1], right[2])),
            ellipsoid(at, self.heart_point(18, 40, -14), (left[0], left[1], left[2])),
        ]

    def mediastinum(self, at: Coordinates) -> np.ndarray:
        """What lies between the lungs."""
        z, y, x = at
        s, p = self.size, self.patient
        level = (z - p.carina) / s
        wide = 17 + 16 * ramp(level, -70, 30) + 7 * ramp(level, 60, 110)
        front = ramp(y, -18 * s, -55 * s)
        round_off = 1 - 0.35 * np.minimum(((y - 8 * s) / (70 * s)) ** 2, 1)
        half = (
            (wide * s).astype(np.float32)
            * (1 - 0.75 * front * ramp(level, 75, 30))
            * round_off
        )
        slab = np.abs(x - 3 * s) - half
        column = np.hypot(x, (y - self.spine(z)) * 0.95) - 23 * s
        behind = np.maximum(np.abs(x) - 15 * s, self.spine(z) - y)
        shape = blend(slab, np.minimum(column, behind), 12)
        return np.asarray(blend(shape, self.heart(at, 2.5), 9), dtype=np.float32)

    def lung(self, at: Coordinates, cage: np.ndarray | None = None) -> np.ndarray:
        """Both lungs."""
        z, y, x = at
        inside = self.cage(at) if cage is None else cage
        above = (self.diaphragm(y, x) - z) * 0.8
        medial = blend(self.mediastinum(at), -above, 16)
        return np.asarray(np.maximum(inside, -medial), dtype=np.float32)

    def fissures(self, at: Coordinates) -> tuple[np.ndarray, np.ndarray]:
        """Oblique and horizontal fissure: the distance above their sheets."""
        z, y, x = at
        s, p = self.size, self.patient
        bow = 5 * s * np.sin((np.abs(x) + 11) / (38 * s))
        slope = 1.22 + 0.08 * np.tanh(x / 20)
        oblique = (z - (0.52 * p.lung - slope * (y - 25 * s) + bow)) * 0.62
        sheet = 0.44 * p.lung + 0.1 * (y + 40) + 6 * np.sin((x + 60) / 45)
        return oblique, z - sheet

    def lobe(self, at: Coordinates, side: str, lobe: str) -> np.ndarray:
        """The distance to a lobe of a side; the surface of the lungs does not count."""
        x = at[2]
        oblique, horizontal = self.fissures(at)
        if lobe == "lower":
            distance = oblique
        elif lobe == "middle":
            distance = np.maximum(-oblique, horizontal)
        elif lobe == "upper":
            distance = np.maximum(-oblique, np.where(x < 0, -horizontal, -1e3))
        else:
            distance = np.full(np.broadcast(*at).shape, -1e3)
        if side != "both":
            distance = np.maximum(distance, x if side == "right" else -x)
        return np.asarray(distance, dtype=np.float32)
