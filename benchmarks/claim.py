"""The claim: a federated generator helps classifiers of a hospital nobody trained on.

    python benchmarks/federation.py --out runs/federation      # trains the generator
    python benchmarks/claim.py --model runs/federation/fedavg/job/model --out runs/claim

The real studies are those on which four hospitals have trained the generator. A plan
against their imbalance is drawn with it, two candidates a volume, of the findings that
a reader can read which was trained on public phantoms; it refuses what does not show
what was asked. Five arms of equal budget are trained: real, real and copies, real
strongly augmented, synthetic alone, real and synthetic. All are tested on patients of a
fifth hospital with a scanner of its own. Every stage resumes.
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from hospitals import HELD_OUT_SEED, SEEDS, SITES, SLICES
from phantoms import TAUGHT, Patient, patients
from tqdm import tqdm

from ctflow_fed import augment
from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.ct.nifti import write_nifti
from ctflow_fed.ct.phantom import HELD_OUT
from ctflow_fed.evaluation import UtilitySettings
from ctflow_fed.evaluation.figure import Evaluation
from ctflow_fed.evaluation.usefulness import measure_usefulness
from ctflow_fed.files import write_json
from ctflow_fed.machine import cores
from ctflow_fed.reader import Reader

RESULTS = Path(__file__).parent / "results" / "claim.json"
STUDIES, TESTED, READ, READER_SEED = 16, 240, 240, 3001
RARE = 0.05
SETTINGS = UtilitySettings(shape=(64, 64, 32), steps=600, repeats=3)


def main() -> None:
    """Draw, train, test, and print what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="A model package, or base.")
    parser.add_argument("--out", type=Path, default=Path("runs/claim"))
    parser.add_argument("--ratio", type=float, default=8.0)
    given = parser.parse_args()
    known = [
        patient
        for site, population in SITES.items()
        for patient in patients({SLICES: STUDIES}, SEEDS[site], population)
    ]
    real = items_of(known, given.out / "real")
    tested = patients({SLICES: TESTED}, HELD_OUT_SEED, HELD_OUT)
    test = items_of(list(tested), given.out / "test")
    reader = given.out / "reader.safetensors"
    if not reader.exists():
        public = items_of(
            list(patients({SLICES: READ}, READER_SEED, TAUGHT)), given.out / "public"
        )
        augment.train_reader(public, reader)
    plan = augment.plan(
        those_read(real, reader), ratio=given.ratio, slices=SLICES, seed=0
    )
    settings = augment.GenerateSettings(
        batch=8, gate="any", candidates=2, reader=reader
    )
    store = augment.generate(
        plan, model=given.model, out=given.out / "drawn", workers=0, settings=settings
    )
    items = augment.extend(real, store)
    found = measure_usefulness(
        real,
        [item for item in items if item["synthetic"]],
        test,
        groups={},
        cache=given.out / "fits",
        settings=SETTINGS,
    )
    result = {"refused": store.status().refused, **told(found, real)}
    write_json(RESULTS, result)
    print(json.dumps(result, indent=2))


def items_of(known: Sequence[Patient], folder: Path) -> list[dict[str, Any]]:
    """Write the scans of patients, those that are not there yet, as MONAI's items."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{patient.seed:x}.nii.gz" for patient in known]
    jobs = [pair for pair in zip(known, paths, strict=True) if not pair[1].exists()]
    with ProcessPoolExecutor(cores(), get_context("spawn")) as pool:
        written = pool.map(scanned, jobs, chunksize=4)
        list(tqdm(written, total=len(jobs), desc=folder.name, disable=None))
    return [
        {
            "image": str(path),
            "label": np.array(patient.labels, np.float32),
            "report": patient.report,
            "synthetic": False,
            "sample_id": path.name,
            "patient": patient.name,
        }
        for patient, path in zip(known, paths, strict=True)
    ]


def those_read(items: Iterable[dict[str, Any]], path: Path) -> list[dict[str, Any]]:
    """Return items with the findings alone that a reader can read.

    What it cannot be seen to draw the generator shall not be asked for: a volume that
    lacks the finding of its label teaches the wrong thing.
    """
    reader = Reader()
    reader.load(path)
    read = np.isin(FINDINGS, list(reader.known))
    return [{**item, "label": item["label"] * read} for item in items]


def scanned(job: tuple[Patient, Path]) -> None:
    """Write the scan of a patient."""
    patient, path = job
    write_nifti(patient.scan().volume, path)


def told(found: Evaluation, real: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return gains with their bounds, and those of findings with their prevalence."""
    share = dict(zip(FINDINGS, np.mean([e["label"] for e in real], 0), strict=True))
    gains = {
        each.part: {
            "prevalence": round(float(share[each.part]), 3),
            "gain": round(each.value.value, 3),
        }
        for each in found.figures
        if each.name == "finding_gain" and each.value is not None
    }
    rare = [each["gain"] for each in gains.values() if each["prevalence"] < RARE]
    other = [each["gain"] for each in gains.values() if each["prevalence"] >= RARE]
    return {
        "made": found.made,
        "figures": [
            [each.name, each.part, *np.round(astuple(each.value), 3), each.verdict]
            for each in found.figures
            if each.name in ("gain", "tstr_ratio", "macro_auroc") and each.value
        ],
        "findings": gains,
        "mean_gain_of_rare": round(float(np.mean(rare)), 3) if rare else None,
        "mean_gain_of_others": round(float(np.mean(other)), 3) if other else None,
    }


if __name__ == "__main__":
    main()
