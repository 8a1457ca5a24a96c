"""The account of a demo, read from what it left in its folder."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from ctflow_fed import __version__
from ctflow_fed.augment import SynthStore, extend
from ctflow_fed.ct.account import read_account
from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.ct.phantom import HELD_OUT, HOSPITALS, Population
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.demo.chain import own_hospital, scanned_alike
from ctflow_fed.demo.journal import Journal
from ctflow_fed.demo.places import Places, items_of, rows_of
from ctflow_fed.demo.settings import DemoSettings
from ctflow_fed.evaluation import UtilityResult
from ctflow_fed.federation import read_ledger
from ctflow_fed.files import read_json
from ctflow_fed.machine import cores
from ctflow_fed.model import load_package
from ctflow_fed.report import (
    Pair,
    Picture,
    RoundAccount,
    RunAccount,
    SiteAccount,
    StageAccount,
    SynthAccount,
)

__all__ = ["account_of", "pairs_of", "summary_of"]

Items = Sequence[Mapping[str, Any]]

SHOWN = ("Pleural effusion", "Cardiomegaly", "Consolidation", "Emphysema", *FINDINGS)
"""The findings to show, those first that can be seen at the demo's resolution."""

PAIRS = 4


def account_of(places: Places, settings: DemoSettings, journal: Journal) -> RunAccount:
    """Return what the page of a finished demo tells."""
    real, test = items_of(places.real), items_of(places.test)
    synthetic = extend([], SynthStore(places.synthetic))
    stages = tuple(journal.records.values())
    return RunAccount(
        command=f"ctflow demo --out {shlex.quote(str(places.folder))} "
        f"--seed {settings.seed}",
        version=__version__,
        seed=settings.seed,
        cores=cores(),
        sites=_sites(places, settings),
        rounds=_rounds(places),
        steps=settings.steps,
        synthetic=_synthetic(places, settings, synthetic),
        pairs=pairs_of([*real, *test], synthetic),
        utility=UtilityResult.from_json(read_json(places.utility)),
        stages=tuple(
            StageAccount(title=each.title, seconds=each.seconds) for each in stages
        ),
        seconds=round(sum(each.seconds for each in stages), 1),
        peak_rss_mb=max(each.peak_rss_mb for each in stages),
        resumed=journal.resumed,
    )


def summary_of(account: RunAccount) -> dict[str, Any]:
    """Return the numbers of a run for machines; ``summary.json`` holds them."""
    utility = account.utility
    return {
        "sites": sum(site.role == "federation" for site in account.sites),
        "rounds": len(account.rounds),
        "loss_first": account.rounds[0].loss_before,
        "loss_last": account.rounds[-1].loss_after,
        "synthetic_volumes": account.synthetic.volumes,
        "utility": {arm.name: arm.auroc.value for arm in utility.arms},
        "utility_detail": asdict(utility),
        "seconds": account.seconds,
        "peak_rss_mb": account.peak_rss_mb,
        "stage_seconds": {stage.title: stage.seconds for stage in account.stages},
        "seed": account.seed,
        "version": account.version,
    }


def pairs_of(real: Items, synthetic: Items) -> tuple[Pair, ...]:
    """Choose what to show by a rule, not by eye.

    For each finding, of all volumes that have it, the one with the fewest others.
    """
    pairs = []
    for finding in dict.fromkeys(SHOWN):
        place = FINDINGS.index(finding)
        chosen = [_plainest(items, place) for items in (real, synthetic)]
        if None not in chosen:
            pictures = [_picture(item) for item in chosen if item is not None]
            pairs.append(Pair(finding=finding, real=pictures[0], synthetic=pictures[1]))
        if len(pairs) == PAIRS:
            break
    return tuple(pairs)


def _plainest(items: Items, place: int) -> Mapping[str, Any] | None:
    having = [item for item in items if item["label"][place]]
    return min(
        having,
        key=lambda item: (float(item["label"].sum()), item["sample_id"]),
        default=None,
    )


def _picture(item: Mapping[str, Any]) -> Picture:
    return Picture(
        volume=_volume(Path(item["image"])),
        findings=tuple(
            name for name, on in zip(FINDINGS, item["label"], strict=True) if on
        ),
        report=item["report"],
    )


def _volume(path: Path) -> CTVolume:
    """Read a volume that the demo wrote, whatever it looks like.

    `read_nifti` refuses what is no CT, but bad volumes have to be seen as well.
    """
    image = nibabel.nifti1.load(path)
    affine = np.asarray(image.affine, dtype=np.float64)
    return CTVolume.canonical(np.asarray(image.dataobj), affine)


def _sites(places: Places, settings: DemoSettings) -> tuple[SiteAccount, ...]:
    """Return the hospitals of the federation, then what the researcher has."""
    sites = []
    for name, population in HOSPITALS.items():
        accounts = read_account(places.site(name)).values()
        sites.append(
            _site(
                name,
                "federation",
                scanned_alike(population, settings),
                rows_of(places.hospital(name)),
                refused=sum(account.refused for account in accounts),
            )
        )
    for name, role, population, folder in (
        (
            f"{own_hospital().name}, new patients",
            "researcher",
            own_hospital(),
            places.real,
        ),
        (HELD_OUT.name, "test", HELD_OUT, places.test),
    ):
        alike = scanned_alike(population, settings)
        sites.append(_site(name, role, alike, rows_of(folder), refused=0))
    return tuple(sites)


def _site(
    name: str,
    role: str,
    population: Population,
    rows: Sequence[Mapping[str, str]],
    *,
    refused: int,
) -> SiteAccount:
    scanner = population.scanner
    return SiteAccount(
        name=name,
        role=role,
        scanner=f"{scanner.name}: noise {scanner.noise_hu:g} HU, "
        f"kernel {scanner.sharpness:g}, field {scanner.field_mm:g} mm",
        studies=len(rows),
        refused=refused,
        prevalence={
            finding: sum(row[finding] == "1" for row in rows) / len(rows)
            for finding in FINDINGS
        },
    )


def _rounds(places: Places) -> tuple[RoundAccount, ...]:
    folder = places.federation
    records = read_ledger(folder).records
    return tuple(
        RoundAccount(
            number=record.round,
            loss_before=record.loss_before,
            loss_after=record.loss_after,
            seconds=record.seconds,
            megabytes=record.bytes / 1e6,
        )
        for record in records
    )


def _synthetic(places: Places, settings: DemoSettings, items: Items) -> SynthAccount:
    package = load_package(places.model)
    labels = np.stack([item["label"] for item in items])
    return SynthAccount(
        volumes=len(items),
        prevalence=dict(zip(FINDINGS, labels.mean(axis=0).tolist(), strict=True)),
        slices=settings.slices,
        image_size=settings.image_size,
        parameters=sum(value.numel() for value in package.network.parameters()),
        digest=package.digest,
        parent=package.provenance.parent,
    )
