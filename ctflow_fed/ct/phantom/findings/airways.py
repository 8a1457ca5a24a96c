"""Findings of the bronchi: thickened walls, dilated lumina."""

import numpy as np

from ctflow_fed.ct.phantom.findings.place import sides_of
from ctflow_fed.ct.phantom.lungs import Twig, bronchial_tree, radius_of, twig_share
from ctflow_fed.ct.phantom.plan import Finding
from ctflow_fed.ct.phantom.scene import Scene

__all__ = ["bronchiectasis", "thickening"]


def thickening(scene: Scene, finding: Finding) -> None:
    """Thick walls along the larger bronchi of both lungs."""
    twigs = [
        twig
        for side in (-1, 1)
        for twig in bronchial_tree(scene, side)
        if twig.load >= 6
    ]
    lumen = [radius_of(twig, 0.8 * scene.chest.size) for twig in twigs]
    _paint_rings(scene, finding, twigs, lumen, 2.6)


def bronchiectasis(scene: Scene, finding: Finding) -> None:
    """Bronchi of one lobe that are far wider than the arteries beside them."""
    twigs = []
    for side in sides_of(finding):
        tree = bronchial_tree(scene, -1 if side == "right" else 1)
        twigs += [twig for twig in tree if 2 <= twig.load <= 60]
    middles = np.array([np.add(twig.start, twig.stop) / 2 for twig in twigs])
    at = (middles[:, 0], middles[:, 1], middles[:, 2])
    inside = scene.chest.lobe(at, finding.side, finding.lobe) < 0
    chosen = [twig for twig, here in zip(twigs, inside, strict=True) if here]
    lumen = [finding.size_mm / 2 * min(1.0, 0.6 + twig.load / 30) for twig in chosen]
    _paint_rings(scene, finding, chosen, lumen, 2.0)


def _paint_rings(
    scene: Scene, finding: Finding, twigs: list[Twig], lumen: list[float], wall: float
) -> None:
    """Paint bronchi: the walls of all, then the air in all."""
    whole = scene.canvas.whole()
    outer = twig_share(scene, twigs, [radius + wall for radius in lumen]) * scene.lung
    inner = twig_share(scene, twigs, lumen) * scene.lung
    scene.show(finding.name, whole, outer, 20)
    scene.canvas.paint(whole, inner, -950)
