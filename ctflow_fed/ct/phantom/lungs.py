"""The lungs: parenchyma, fissures, and the trees of vessels and bronchi."""

from dataclasses import dataclass

import numpy as np

from ctflow_fed.ct.phantom.canvas import Canvas, Point, noise
from ctflow_fed.ct.phantom.courses import bronchi
from ctflow_fed.ct.phantom.geometry import ramp
from ctflow_fed.ct.phantom.scene import Scene, mesh

__all__ = ["Twig", "bronchial_tree", "paint_lungs", "radius_of", "twig_share"]


@dataclass(frozen=True)
class Twig:
    """One straight piece of a tree; ``load`` counts the tips behind it."""

    start: Point
    stop: Point
    load: int


def paint_lungs(scene: Scene) -> None:
    """Parenchyma with its gradient, fissures and vessels; lobar bronchi."""
    canvas, p = scene.canvas, scene.patient
    box = canvas.whole()
    rng = p.stream("parenchyma")
    texture = 14 * noise(rng, box, 22) + 16 * noise(rng, box, 7)
    gravity = 0.28 * (box.y - 10) + 40 * ramp(box.y, 50, 110)
    base = -872 + 30 * (p.age < 40) - 12 * (p.age > 65)
    canvas.paint(box, scene.lung, base + gravity + texture)
    _paint_fissures(scene)
    for side in (-1, 1):
        _paint_vessels(scene, side)


def _paint_fissures(scene: Scene) -> None:
    """The oblique fissures, and the horizontal one on the right."""
    canvas = scene.canvas
    box = canvas.whole()
    oblique, horizontal = scene.chest.fissures(mesh(box))
    flat = np.where((box.x < 0) & (oblique > 0), np.abs(horizontal), 1e3)
    nearest = np.minimum(np.abs(oblique), flat)
    canvas.paint(box, canvas.thin(nearest, 0.4, 1) * scene.lung, -320)


def points_in_lung(
    scene: Scene, side: int, count: int, inset: float, *key: str | int
) -> np.ndarray:
    """Random places in a lung ``[count, 3]``, ``inset`` mm off its surface."""
    p = scene.patient
    rng = p.stream("points", side, *key)
    found = np.zeros((0, 3), np.float32)
    while len(found) < count:
        z = rng.uniform(-60, p.lung, 4 * count)
        y = rng.uniform(-p.depth, p.depth + 30, 4 * count)
        x = side * rng.uniform(8, p.width, 4 * count)
        inside = scene.free_lung((z, y, x), scene.usual) < -inset
        kept = np.stack((z, y, x), 1)[inside].astype(np.float32)
        found = np.concatenate((found, kept))
    return found[:count]


def grow(start: Point, tips: np.ndarray) -> list[Twig]:
    """Grow a tree from ``start`` to all tips: go halfway to the middle, then split."""
    twigs: list[Twig] = []
    waiting = [(np.asarray(start, np.float32), tips)]
    while waiting:
        here, group = waiting.pop()
        if len(group) == 1:
            twigs.append(Twig(_point(here), _point(group[0]), 1))
            continue
        middle = group.mean(0)
        there = here + 0.42 * (middle - here)
        twigs.append(Twig(_point(here), _point(there), len(group)))
        spread = group - middle
        axis = np.linalg.eigh(spread.T @ spread)[1][:, -1]  # of the widest spread
        side = spread @ axis > 0
        if side.all() or not side.any():
            side = np.arange(len(group)) % 2 == 0
        waiting += [(there, group[side]), (there, group[~side])]
    return twigs


def _point(values: np.ndarray) -> Point:
    """An array of three as a point."""
    return (float(values[0]), float(values[1]), float(values[2]))


def bronchial_tree(scene: Scene, side: int) -> list[Twig]:
    """The bronchi of one lung beyond its main bronchus; arteries run beside them."""
    points, _ = bronchi(scene.usual, side)
    tips = points_in_lung(scene, side, 230, 2.5, "artery")
    hub = points[2]
    low = tips[:, 0] < hub[0] - 4
    return grow(hub, tips[~low]) + grow(points[3], tips[low])


def _paint_vessels(scene: Scene, side: int) -> None:
    """Arteries beside the bronchi, and veins to the left atrium."""
    p, s = scene.patient, scene.chest.size
    airways = bronchial_tree(scene, side)
    beside = np.array([2.0, 4.0, 5.0 * side]) * s
    arteries = [_moved(twig, beside) for twig in airways]
    tips = points_in_lung(scene, side, 190, 2.5, "vein")
    hub = scene.usual.heart_point(14, 36, -14 + 34 * side)
    upper = tips[:, 0] > p.carina - 10
    veins = grow(hub, tips[upper]) + grow(hub, tips[~upper])
    paint_twigs(scene, arteries, 1.1, p.blood)
    paint_twigs(scene, veins, 1.05, p.blood)
    large = [twig for twig in airways if twig.load >= 18]
    paint_twigs(scene, large, 0.8, 0, wall=0.8)
    paint_twigs(scene, large, 0.8, -960)


def _moved(twig: Twig, offset: np.ndarray) -> Twig:
    """A twig beside another; the tips stay where they are."""
    start = _point(np.asarray(twig.start) + offset * min(1, twig.load / 30))
    stop = _point(np.asarray(twig.stop) + offset * min(1, twig.load / 60))
    return Twig(start, stop, twig.load)


def radius_of(twig: Twig, tip_mm: float) -> float:
    """Radius of a twig by the number of tips that it serves (Murray's law)."""
    return float(tip_mm * twig.load ** (1 / 3))


def paint_twigs(
    scene: Scene, twigs: list[Twig], tip_mm: float, hu: float, *, wall: float = 0.0
) -> None:
    """Paint a tree whose tips have a radius of ``tip_mm``."""
    radii = [radius_of(twig, tip_mm * scene.chest.size) + wall for twig in twigs]
    scene.canvas.paint(scene.canvas.whole(), twig_share(scene, twigs, radii), hu)


def twig_share(scene: Scene, twigs: list[Twig], radii: list[float]) -> np.ndarray:
    """The share of each voxel: large twigs as tubes, thin ones by their mass."""
    pairs = list(zip(twigs, radii, strict=True))
    limit = 0.75 * scene.canvas.edge
    fine = [(twig, radius) for twig, radius in pairs if radius <= limit]
    total = splat(scene.canvas, fine) * scene.lung
    for twig, radius in pairs:
        if radius > limit:
            for share, box in scene.tube_shares([twig.start, twig.stop], [radius] * 2):
                view = total[box.index]
                np.maximum(view, share, out=view)
    return np.asarray(total)


def splat(canvas: Canvas, twigs: list[tuple[Twig, float]]) -> np.ndarray:
    """The share of each voxel that thin twigs take: their volume, shared out."""
    if not twigs:
        return np.zeros_like(canvas.hu)
    starts = np.array([twig.start for twig, _ in twigs])
    lines = np.array([twig.stop for twig, _ in twigs]) - starts
    lengths = np.sqrt((lines**2).sum(1))
    counts = np.maximum(2, (lengths / (0.4 * min(canvas.voxel))).astype(int))
    volumes = np.pi * np.array([radius for _, radius in twigs]) ** 2 * lengths
    owner = np.repeat(np.arange(len(twigs)), counts)
    order = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    steps = (order + 0.5) / counts[owner]
    places = starts[owner] + steps[:, None] * lines[owner]
    masses = (volumes / counts / np.prod(canvas.voxel))[owner]
    index, weight = _corners(canvas, places, masses)
    total = np.bincount(index, weight, canvas.hu.size + 1)[:-1]
    return np.minimum(total, 1).astype(np.float32).reshape(canvas.hu.shape)


def _corners(
    canvas: Canvas, places: np.ndarray, masses: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The eight voxels around each place, and what each gets of its mass."""
    origin = np.array([canvas.z[0], canvas.y[0], canvas.x[0]])
    shape = np.array(canvas.hu.shape)
    grid = (places - origin) / np.array(canvas.voxel)
    low = np.floor(grid).astype(np.int64)
    part = grid - low
    index, weight = [], []
    for corner in np.ndindex(2, 2, 2):
        step = np.array(corner)
        cell = low + step
        good = ((cell >= 0) & (cell < shape)).all(1)
        flat = (cell[:, 0] * shape[1] + cell[:, 1]) * shape[2] + cell[:, 2]
        index.append(np.where(good, flat, canvas.hu.size))
        weight.append(np.where(step, part, 1 - part).prod(1) * masses)
    return np.concatenate(index), np.concatenate(weight)
