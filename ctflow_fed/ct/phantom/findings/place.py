"""Where in a lung a finding may lie."""

import numpy as np

from ctflow_fed.ct.phantom.canvas import Box, Point
from ctflow_fed.ct.phantom.plan import Finding
from ctflow_fed.ct.phantom.scene import Scene

__all__ = ["flood", "place_in_lobe", "sides_of", "tissue_share"]


def sides_of(finding: Finding) -> tuple[str, ...]:
    """The sides of a finding, one by one."""
    return ("right", "left") if finding.side == "both" else (finding.side,)


def place_in_lobe(
    scene: Scene, finding: Finding, side: str, depth: float, *, back: float = 40.0
) -> Point:
    """A place in the lobe of a finding, ``depth`` mm or more from its surface.

    Where no place is that deep, the deepest. Places more than ``back`` mm behind the
    middle of the rib cage are avoided, because fluid gathers there.
    """
    p = scene.patient
    rng = p.stream("place", finding.name, side)
    count = 3000
    z = rng.uniform(-30, 0.94 * p.lung, count)
    y = rng.uniform(-p.depth, p.depth + 20, count)
    x = rng.uniform(10, p.width, count) * (-1 if side == "right" else 1)
    distance = scene.free_lung((z, y, x), scene.chest)
    distance = np.maximum(distance, scene.chest.lobe((z, y, x), side, finding.lobe))
    distance = np.where(y - scene.chest.axis(z) < back, distance, 1e3)
    deep = np.flatnonzero(distance < -depth)
    pick = int(deep[0]) if len(deep) else int(np.argmin(distance))
    return float(z[pick]), float(y[pick]), float(x[pick])


def flood(
    scene: Scene, box: Box, name: str, share: np.ndarray, hu: float | np.ndarray
) -> None:
    """Fill ``share`` of the lung with something dense, up to the pleura.

    A voxel that is part lung, part chest wall keeps no lung, so that no dark rim stays.
    """
    lung = scene.lung[box.index]
    scene.canvas.paint(box, share * np.minimum(3 * lung, 1), hu)
    scene.mark(name, box, share * lung)


def tissue_share(values: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Spare what is denser than lung: vessels shine through, bronchial walls stay."""
    return share * np.clip((-450 - values) / 200, 0, 1)
