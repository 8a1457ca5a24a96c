"""Medical material: pacemaker, port, sternal wires."""

import numpy as np

from ctflow_fed.ct.phantom.canvas import Point
from ctflow_fed.ct.phantom.courses import cava
from ctflow_fed.ct.phantom.geometry import ellipsoid
from ctflow_fed.ct.phantom.plan import Finding
from ctflow_fed.ct.phantom.scene import Scene, mesh

__all__ = ["device"]


def device(scene: Scene, finding: Finding) -> None:
    """Paint the planned device."""
    if finding.kind == "pacemaker":
        _pacemaker(scene, finding)
    elif finding.kind == "port":
        _port(scene, finding)
    else:
        _wires(scene, finding)


def _pacemaker(scene: Scene, finding: Finding) -> None:
    """A generator under the left collar bone and a lead to the right ventricle."""
    can = _under_skin(scene, 0.78, 84, 9)
    _paint_case(scene, finding, can, (21, 5.5, 19), 2800)
    veins, _ = cava(scene.chest)
    entry = (scene.patient.lung * 0.93, 0.0, 60.0 * scene.chest.size)
    joint = scene.chest.point(52, -26, 20)
    tip = scene.chest.heart_point(-26, -26, 34)
    atrium = scene.chest.heart_point(0, 4, -40)
    lead = [can, entry, joint, *veins[1:], atrium, tip]
    _paint_wire(scene, finding, lead, 1.3, 2500)


def _port(scene: Scene, finding: Finding) -> None:
    """A chamber in the right chest wall and a catheter to the vena cava."""
    chamber = _under_skin(scene, 0.74, -78, 8)
    _paint_case(scene, finding, chamber, (11, 7, 11), 2200)
    veins, _ = cava(scene.chest)
    entry = (scene.patient.lung * 0.97, -2.0, -44.0 * scene.chest.size)
    _paint_wire(scene, finding, [chamber, entry, *veins[:4]], 1.5, 1400)


def _wires(scene: Scene, finding: Finding) -> None:
    """Six loops of wire around the sternum."""
    half = 15 * scene.chest.size
    for level in np.linspace(0.28, 0.82, 6):
        z = float(level) * scene.patient.lung
        front = _cage_front(scene, z)
        loop = [
            (z, front - 15.0, -half),
            (z + 2, front - 16.5, 0.0),
            (z, front - 15.0, half),
            (z, front - 1.0, half),
            (z, front - 1.0, -half),
            (z, front - 15.0, -half),
        ]
        _paint_wire(scene, finding, loop, 1.2, 2900)


def _under_skin(scene: Scene, level: float, x: float, depth: float) -> Point:
    """A place ``depth`` mm under the skin of the front wall."""
    z = level * scene.patient.lung
    y = np.arange(-200.0, 0.0, 0.5)
    side = np.full_like(y, x * scene.chest.size)
    distance = scene.chest.body((np.full_like(y, z), y, side))
    return z, float(y[int(np.argmin(np.abs(distance + depth)))]), float(side[0])


def _cage_front(scene: Scene, z: float) -> float:
    """Where the rib cage ends in front, in the middle."""
    y = np.arange(-200.0, 0.0, 0.5)
    distance = scene.chest.cage((np.full_like(y, z), y, np.zeros_like(y)))
    return float(y[int(np.argmin(np.abs(distance)))])


def _paint_case(
    scene: Scene, finding: Finding, centre: Point, radii: Point, hu: float
) -> None:
    """A metal case."""
    box = scene.around(centre, max(radii) + 3)
    shape = ellipsoid(mesh(box), centre, radii)
    scene.show(finding.name, box, scene.canvas.cover(shape), hu)


def _paint_wire(
    scene: Scene, finding: Finding, points: list[Point], radius: float, hu: float
) -> None:
    """A wire or a catheter."""
    for share, box in scene.tube_shares(points, [radius] * len(points)):
        scene.show(finding.name, box, share, hu)
