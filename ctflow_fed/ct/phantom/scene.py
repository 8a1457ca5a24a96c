"""The canvas with one chest on it: what every painter of an organ works with."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ctflow_fed.ct.phantom.canvas import Box, Canvas, Point
from ctflow_fed.ct.phantom.courses import Course, aorta, cava, pulmonary
from ctflow_fed.ct.phantom.geometry import Chest, Coordinates, ellipsoid
from ctflow_fed.ct.phantom.patient import Patient

__all__ = ["Scene", "capsule", "mesh"]


@dataclass(eq=False)
class Scene:
    """A canvas, the surfaces of the patient, and what was measured on the way.

    Args:
        canvas: What is painted on.
        chest: The surfaces.
        usual: The surfaces of the same patient with a heart of usual size.
        cage: Distance to the inner surface of the rib cage, on the whole grid.
        lung: Share of each voxel that is lung, on the whole grid.
        masks: Share of each voxel that each finding takes, on the whole grid.
    """

    canvas: Canvas
    chest: Chest
    usual: Chest
    cage: np.ndarray
    lung: np.ndarray
    masks: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def patient(self) -> Patient:
        """Whose chest it is."""
        return self.chest.patient

    @classmethod
    def begin(cls, canvas: Canvas, chest: Chest, usual: Chest) -> "Scene":
        """Measure cage and lungs."""
        at = mesh(canvas.whole())
        cage = chest.cage(at)
        scene = cls(canvas, chest, usual, cage, canvas.cover(chest.lung(at, cage)))
        for points, radii in _mantles(chest):
            for share, box in scene.tube_shares(points, radii):
                view = scene.lung[box.index]
                view *= 1 - share
        return scene

    def free_lung(self, at: Coordinates, chest: Chest) -> np.ndarray:
        """The distance to the lungs without the great vessels, for single points."""
        distance = chest.lung(at)
        for points, radii in _mantles(chest):
            for i in range(len(points) - 1):
                axis, _ = capsule(at, points[i], points[i + 1])
                distance = np.maximum(distance, radii[i] - axis)
        return distance

    def mark(self, name: str, box: Box, share: np.ndarray) -> None:
        """Note that a finding takes ``share`` of each voxel of a box."""
        whole = self.masks.setdefault(name, np.zeros_like(self.cage))
        view = whole[box.index]
        np.maximum(view, share, out=view)

    def show(
        self, name: str, box: Box, share: np.ndarray, hu: float | np.ndarray
    ) -> None:
        """Paint a part of a finding and note where it is."""
        self.canvas.paint(box, share, hu)
        self.mark(name, box, share)

    def around(self, centre: Point, reach: float) -> Box:
        """The box of all points less than ``reach`` mm from a point on each axis."""
        low = (centre[0] - reach, centre[1] - reach, centre[2] - reach)
        return self.canvas.box(
            low, (centre[0] + reach, centre[1] + reach, centre[2] + reach)
        )

    def tube(
        self,
        points: Sequence[Point],
        radii: Sequence[float],
        hu: float,
        *,
        within: np.ndarray | None = None,
    ) -> None:
        """Paint a chain of capsules; ``within`` limits it to a share of each voxel."""
        for share, box in self.tube_shares(points, radii):
            limited = share if within is None else share * within[box.index]
            self.canvas.paint(box, limited, hu)

    def tube_shares(
        self, points: Sequence[Point], radii: Sequence[float]
    ) -> list[tuple[np.ndarray, Box]]:
        """The share of each voxel that each capsule of a chain takes."""
        found = []
        for i in range(len(points) - 1):
            low, high = _corners(points[i], points[i + 1])
            box = self.canvas.box(low, high, max(radii[i], radii[i + 1]))
            if box.empty:
                continue
            distance, part = capsule(mesh(box), points[i], points[i + 1])
            radius = radii[i] + (radii[i + 1] - radii[i]) * part
            mean = (radii[i] + radii[i + 1]) / 2
            if mean < 0.5 * self.canvas.edge:
                share = self.canvas.thin(distance, mean, 2)
            else:
                share = self.canvas.cover(distance - radius)
            found.append((share, box))
        return found

    def blob(
        self, centre: Point, radii: Point, hu: float, axis: Point | None = None
    ) -> None:
        """Paint an ellipsoid."""
        reach = max(radii) if axis is not None else 0.0
        low = tuple(c - max(r, reach) for c, r in zip(centre, radii, strict=True))
        high = tuple(c + max(r, reach) for c, r in zip(centre, radii, strict=True))
        box = self.canvas.box((low[0], low[1], low[2]), (high[0], high[1], high[2]))
        if not box.empty:
            shape = ellipsoid(mesh(box), centre, radii, axis)
            self.canvas.paint(box, self.canvas.cover(shape), hu)


def _mantles(chest: Chest) -> list[Course]:
    """The great vessels beside the lungs, with the fat around them."""
    courses = [aorta(chest), cava(chest), *pulmonary(chest)]
    return [(points, [r + 2.5 for r in radii]) for points, radii in courses]


def mesh(box: Box) -> Coordinates:
    """The coordinates of a box."""
    return (box.z, box.y, box.x)


def capsule(
    at: Coordinates, start: Point, stop: Point
) -> tuple[np.ndarray, np.ndarray]:
    """Distance to a line segment; how far along it (0 to 1) the nearest point is."""
    line = np.subtract(stop, start).astype(np.float32)
    length = max(float(line @ line), 1e-6)
    z, y, x = (along - begin for along, begin in zip(at, start, strict=True))
    part = np.clip((z * line[0] + y * line[1] + x * line[2]) / length, 0, 1)
    square = (z - part * line[0]) ** 2 + (y - part * line[1]) ** 2
    return np.sqrt(square + (x - part * line[2]) ** 2), part


def _corners(first: Point, second: Point) -> tuple[Point, Point]:
    """The lower and the upper corner of the box around two points."""
    low = np.minimum(first, second).tolist()
    high = np.maximum(first, second).tolist()
    return (low[0], low[1], low[2]), (high[0], high[1], high[2])
