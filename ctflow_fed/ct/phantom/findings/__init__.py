"""The 18 findings, each painted where it belongs."""

from collections.abc import Callable

from ctflow_fed.ct.phantom.findings import (
    airways,
    devices,
    diffuse,
    focal,
    heart,
    hilum,
    pleura,
)
from ctflow_fed.ct.phantom.plan import Finding
from ctflow_fed.ct.phantom.scene import Scene

__all__ = ["paint_findings"]

PAINTERS: dict[str, Callable[[Scene, Finding], None]] = {
    "Pleural effusion": pleura.effusion,
    "Mosaic attenuation pattern": diffuse.mosaic,
    "Emphysema": diffuse.emphysema,
    "Lung opacity": focal.opacity,
    "Interlobular septal thickening": diffuse.septa,
    "Pulmonary fibrotic sequela": pleura.fibrosis,
    "Peribronchial thickening": airways.thickening,
    "Bronchiectasis": airways.bronchiectasis,
    "Consolidation": focal.consolidation,
    "Atelectasis": focal.atelectasis,
    "Lung nodule": focal.nodule,
    "Cardiomegaly": heart.cardiomegaly,
    "Pericardial effusion": heart.effusion,
    "Coronary artery wall calcification": heart.coronary_calcification,
    "Hiatal hernia": hilum.hernia,
    "Lymphadenopathy": hilum.nodes,
    "Arterial wall calcification": hilum.aortic_calcification,
    "Medical material": devices.device,
}
"""Each finding's painter, in the order in which they are laid over each other."""


def paint_findings(scene: Scene, plan: tuple[Finding, ...]) -> None:
    """Paint the planned findings over the anatomy."""
    planned = {finding.name: finding for finding in plan}
    for name, painter in PAINTERS.items():
        if name in planned:
            painter(scene, planned[name])
