"""Every finding is where it belongs, and is seen there."""

from functools import cache

import numpy as np
import pytest

from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.ct.phantom import PhantomStudy, Scanner, draw, plan_findings
from ctflow_fed.ct.phantom.canvas import Canvas
from ctflow_fed.ct.phantom.courses import aorta
from ctflow_fed.ct.phantom.geometry import Chest
from ctflow_fed.ct.phantom.mediastinum import coronaries
from ctflow_fed.ct.phantom.patient import patient_of
from ctflow_fed.ct.phantom.scene import Scene, capsule, mesh

SMALL = Scanner().resized(32, 64)
IN_LUNG = (
    "Atelectasis",
    "Bronchiectasis",
    "Consolidation",
    "Emphysema",
    "Interlobular septal thickening",
    "Lung nodule",
    "Lung opacity",
    "Mosaic attenuation pattern",
    "Peribronchial thickening",
    "Pulmonary fibrotic sequela",
)
SEEDS = (0, 1)


@cache
def with_only(name: str, seed: int) -> PhantomStudy:
    return draw(seed, [name], scanner=SMALL)


@cache
def without_findings(seed: int) -> PhantomStudy:
    return draw(seed, scanner=SMALL)


@cache
def scene_of(seed: int) -> Scene:
    """The chest of a seed before anything is painted."""
    patient = patient_of(seed)
    chest = Chest(patient)
    return Scene.begin(Canvas(SMALL, patient.middle), chest, chest)


def places(mask: np.ndarray, scene: Scene) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The coordinates in mm of the voxels of a mask."""
    z, y, x = np.nonzero(mask)
    return scene.canvas.z[z], scene.canvas.y[y], scene.canvas.x[x]


@pytest.mark.parametrize("name", FINDINGS)
def test_a_finding_changes_the_hounsfield_units_in_its_mask(name):
    for seed in SEEDS:
        plain, study = without_findings(seed), with_only(name, seed)
        mask = study.masks[name]
        change = np.abs(study.volume.hu.astype(float) - plain.volume.hu)
        assert mask.any()
        assert study.labels == {other: int(other == name) for other in FINDINGS}
        assert change[mask].mean() > 20
        assert change[mask].mean() > 5 * change[~mask].mean()


@pytest.mark.parametrize("name", IN_LUNG)
def test_a_finding_of_the_lung_lies_in_the_lung(name):
    for seed in SEEDS:
        mask = with_only(name, seed).masks[name]
        assert scene_of(seed).lung[mask].mean() > 0.75


@pytest.mark.parametrize("name", ["Lung nodule", "Consolidation", "Lung opacity"])
def test_a_focal_finding_lies_on_its_side_and_in_its_lobe(name):
    for seed in SEEDS:
        (finding,) = plan_findings([name], seed)
        scene = scene_of(seed)
        z, y, x = places(with_only(name, seed).masks[name], scene)
        if finding.side != "both":
            assert (np.sign(x) == (-1 if finding.side == "right" else 1)).all()
        outside = scene.chest.lobe((z, y, x), finding.side, finding.lobe)
        assert (outside < 7).all() or name == "Lung opacity"  # a veil crosses fissures


def test_a_nodule_has_the_size_that_is_reported():
    scanner = Scanner(slices=100, rows=128, slice_mm=3.0)
    seed = next(
        s for s in range(99) if plan_findings(["Lung nodule"], s)[0].size_mm > 18
    )
    (finding,) = plan_findings(["Lung nodule"], seed)
    mask = draw(seed, ["Lung nodule"], scanner=scanner).masks["Lung nodule"]
    volume = mask.sum() * scanner.pixel_mm**2 * scanner.slice_mm
    diameter = (6 * volume / np.pi) ** (1 / 3)
    assert diameter == pytest.approx(finding.size_mm, rel=0.25)


def test_a_pleural_effusion_gathers_behind_and_on_its_side():
    for seed in SEEDS:
        (finding,) = plan_findings(["Pleural effusion"], seed)
        scene = scene_of(seed)
        mask = with_only("Pleural effusion", seed).masks["Pleural effusion"]
        z, y, x = places(mask, scene)
        assert (y > scene.chest.axis(z)).mean() > 0.95
        assert (scene.cage[mask] > -finding.size_mm - 6).all()
        if finding.side == "left":
            assert (x > 0).all()
        if finding.side == "right":
            assert (x < 0).all()


def test_aortic_plaques_lie_at_the_wall_of_the_aorta():
    name = "Arterial wall calcification"
    for seed in SEEDS:
        scene = scene_of(seed)
        at = places(with_only(name, seed).masks[name], scene)
        points, radii = aorta(scene.chest)
        gaps = [
            np.abs(capsule(at, points[i], points[i + 1])[0] - radii[i])
            for i in range(len(points) - 1)
        ]
        assert (np.min(gaps, axis=0) < 8).all()


def test_coronary_plaques_lie_on_a_coronary_artery():
    name = "Coronary artery wall calcification"
    for seed in SEEDS:
        scene = scene_of(seed)
        at = places(with_only(name, seed).masks[name], scene)
        gaps = [
            capsule(at, course[i], course[i + 1])[0]
            for course in coronaries(scene).values()
            for i in range(len(course) - 1)
        ]
        assert (np.min(gaps, axis=0) < 9).all()


def test_a_pericardial_effusion_surrounds_the_heart():
    for seed in SEEDS:
        (finding,) = plan_findings(["Pericardial effusion"], seed)
        scene = scene_of(seed)
        mask = with_only("Pericardial effusion", seed).masks["Pericardial effusion"]
        distance = scene.chest.heart(places(mask, scene))
        assert distance.min() > -5
        assert distance.max() < finding.size_mm + 5


def test_an_enlarged_heart_takes_more_of_the_chest():
    name = "Cardiomegaly"
    scene = scene_of(1)
    usual = scene.chest.heart(mesh(scene.canvas.whole())) < 0
    assert with_only(name, 1).masks[name].sum() > 1.4 * usual.sum()


def test_a_hernia_lies_before_the_spine_in_the_midline():
    for seed in SEEDS:
        scene = scene_of(seed)
        z, y, x = places(with_only("Hiatal hernia", seed).masks["Hiatal hernia"], scene)
        assert (y < scene.chest.spine(z)).all()
        assert abs(x.mean()) < 20


def test_enlarged_nodes_lie_between_the_lungs():
    for seed in SEEDS:
        scene = scene_of(seed)
        _, _, x = places(
            with_only("Lymphadenopathy", seed).masks["Lymphadenopathy"], scene
        )
        assert (np.abs(x) < 75).all()


def test_emphysema_prefers_the_upper_lung():
    scene = scene_of(2)
    z, _, _ = places(with_only("Emphysema", 2).masks["Emphysema"], scene)
    lung_z, _, _ = places(scene.lung > 0.5, scene)
    assert z.mean() > lung_z.mean() + 15


def test_scars_lie_at_the_apex():
    scene = scene_of(0)
    name = "Pulmonary fibrotic sequela"
    z, _, _ = places(with_only(name, 0).masks[name], scene)
    assert (z > 0.5 * scene.patient.lung).mean() > 0.9


def test_metal_is_bright():
    for seed in SEEDS:
        study = with_only("Medical material", seed)
        assert study.volume.hu[study.masks["Medical material"]].max() > 400


def test_the_draw_of_one_finding_does_not_depend_on_the_others():
    alone = plan_findings(["Lung nodule"], 7)
    together = plan_findings(FINDINGS, 7)
    assert alone[0] in together
