"""The chain, stage by stage: each goes on by itself from what it finds."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from ctflow_fed.augment import (
    GenerateSettings,
    Plan,
    SynthRequest,
    SynthStore,
    extend,
    generate,
    plan,
)
from ctflow_fed.ct.intake import IntakeSettings, intake
from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.ct.phantom import (
    HELD_OUT,
    HOSPITALS,
    PUBLIC,
    Population,
    draw_findings,
    write_studies,
)
from ctflow_fed.ct.phantom.scanner import COVERAGE_MM
from ctflow_fed.ct.policy import IntakePolicy
from ctflow_fed.demo.places import Places, items_of
from ctflow_fed.demo.settings import DemoSettings
from ctflow_fed.deployment.local import run_locally
from ctflow_fed.errors import IncompleteError
from ctflow_fed.evaluation import measure_utility
from ctflow_fed.federation import FederationSettings, RoundRecord
from ctflow_fed.files import write_json
from ctflow_fed.machine import cores
from ctflow_fed.seeds import derive_seed

__all__ = [
    "balancing_plan",
    "compare_classifiers",
    "draw_volumes",
    "federation_settings",
    "own_hospital",
    "scanned_alike",
    "take_in",
    "train_together",
    "write_scans",
]

MIX_PATIENTS = 500


def scanned_alike(population: Population, settings: DemoSettings) -> Population:
    """Return the population with its scanner set to the demo's grid.

    Noise, kernel and field of view stay as they are; the slices cover the chest.
    """
    scanner = replace(
        population.scanner,
        slices=settings.slices,
        rows=settings.image_size,
        slice_mm=COVERAGE_MM / settings.slices,
    )
    return replace(population, scanner=scanner)


def write_scans(places: Places, settings: DemoSettings) -> None:
    """Let every hospital write its studies, no patient twice.

    The hospitals of the federation write DICOM. The researcher, who belongs to the
    first of them, has other patients of it, and a held-out hospital's for the test.
    """
    for name, population in HOSPITALS.items():
        write_studies(
            places.hospital(name),
            scanned_alike(population, settings),
            settings.studies,
            settings.seed,
        )
    others = derive_seed("researcher", settings.seed)
    for folder, population, count in (
        (places.real, own_hospital(), settings.real),
        (places.test, HELD_OUT, settings.tested),
    ):
        write_studies(
            folder, scanned_alike(population, settings), count, others, "nifti"
        )


def own_hospital() -> Population:
    """Return the hospital that the researcher belongs to."""
    return next(iter(HOSPITALS.values()))


def take_in(places: Places, settings: DemoSettings) -> None:
    """Take every hospital's studies into its own store."""
    for name in HOSPITALS:
        folder = places.hospital(name)
        account = intake(
            folder,
            folder / "reports.csv",
            places.site(name),
            IntakeSettings(
                image_size=settings.image_size,
                policy=IntakePolicy(synthetic="accept"),  # they are phantoms
            ),
        )
        if not account.taken:
            raise IncompleteError(
                f"none of the studies of {name} could be taken in; "
                "its store's account.jsonl says why"
            )


def federation_settings(places: Places, settings: DemoSettings) -> FederationSettings:
    """Return the federated job of the demo."""
    return FederationSettings(
        out=str(places.federation),
        sites=tuple(HOSPITALS),
        rounds=settings.rounds,
        steps=settings.steps,
        preset=settings.preset,
        init=settings.init,
        batch_clips=settings.batch_clips,
        learning_rate=settings.learning_rate,
        seed=settings.seed,
    )


def train_together(
    places: Places, settings: DemoSettings, say: Callable[[str], None]
) -> None:
    """Train the generator at all hospitals and average, round by round.

    A copy of the last package is put where the demo's model belongs.
    """

    def heard(played: RoundRecord) -> None:
        say(
            f"  round {played.round} of {settings.rounds}: loss "
            f"{played.loss_before:.3f} -> {played.loss_after:.3f}, "
            f"{played.seconds:.0f} s"
        )

    stores = {name: places.site(name) for name in HOSPITALS}
    job = run_locally(federation_settings(places, settings), stores, heard)
    partial = places.model.with_name(".partial-model")
    for old in (partial, places.model):
        shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(job.ledger.model, partial)
    partial.replace(places.model)


def draw_volumes(places: Places, settings: DemoSettings) -> None:
    """Draw volumes that show what the researcher's own studies lack."""
    generate(
        balancing_plan(items_of(places.real), settings),
        model=places.model,
        out=places.synthetic,
        workers=cores(),
        settings=GenerateSettings(steps=settings.sample_steps),
    )


def balancing_plan(items: Sequence[Mapping[str, Any]], settings: DemoSettings) -> Plan:
    """Plan volumes that bring every finding as near to one count as they can.

    The count that all findings shall reach, real and synthetic together, is raised
    until enough volumes are planned. A plan begins with the findings that lack most, so
    its first volumes are those that matter most. Every finding is in the target, the
    common ones with a single volume, because only then is it bounded.
    """
    present = {
        name: sum(int(item["label"][place]) for item in items)
        for place, name in enumerate(FINDINGS)
    }
    mix = _independent_mix(settings.seed)
    requests: tuple[SynthRequest, ...] = ()
    level = min(present.values())
    while len(requests) < settings.synthetic:
        level += 1
        target = {name: max(1, level - count) for name, count in present.items()}
        full = plan(mix, target=target, seed=settings.seed, slices=settings.slices)
        requests = full.requests
    return Plan(requests[: settings.synthetic])


def _independent_mix(seed: int) -> list[dict[str, Any]]:
    """Return labels of patients whose findings have nothing to do with one another.

    The plan combines findings as they do. Combined as in the researcher's own patients,
    a rare finding would come with their common ones, and a classifier would learn to
    take one for the other. Each is as frequent as in the public collection of the base
    model, which a researcher may know; what the test is like they may not.
    """
    patients = (
        draw_findings(derive_seed("mix", seed, number), PUBLIC)
        for number in range(MIX_PATIENTS)
    )
    return [
        {"label": [float(name in found) for name in FINDINGS]} for found in patients
    ]


def compare_classifiers(places: Places, settings: DemoSettings) -> None:
    """Train the classifier in its three arms and keep what the test says."""
    items = extend(items_of(places.real), SynthStore(places.synthetic))
    result = measure_utility(
        [item for item in items if not item["synthetic"]],
        [item for item in items if item["synthetic"]],
        items_of(places.test),
        replace(settings.utility, seed=derive_seed("demo", settings.seed)),
    )
    write_json(places.utility, asdict(result))
