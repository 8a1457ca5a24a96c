"""What is trained and tested: the items, the held-out studies, a fit for each arm."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64
from tqdm import tqdm

from ctflow_fed.errors import MismatchError, SettingsError
from ctflow_fed.evaluation.arms import STRENGTHS, Places
from ctflow_fed.evaluation.classifier import RESNET, Classifier, Recipe, fit_and_score
from ctflow_fed.evaluation.features import FeatureCache
from ctflow_fed.evaluation.results import UtilitySettings
from ctflow_fed.evaluation.scores import Draws, Scores, Truth, draw_patients
from ctflow_fed.evaluation.volumes import (
    Item,
    Labels,
    Volumes,
    labels_of_items,
    load_volumes,
)
from ctflow_fed.machine import one_thread_each
from ctflow_fed.seeds import derive_seed

__all__ = ["Fits", "HeldOut", "Pool", "held_out_of", "refuse_leaks", "score_arms"]

TestScores = Float64[np.ndarray, "tested findings"]


@dataclass(frozen=True, eq=False)
class Pool:
    """Everything that an arm may be trained on, real items first."""

    volumes: Volumes
    labels: Labels
    real: int

    @classmethod
    def of(cls, items: Sequence[Item], real: int, settings: UtilitySettings) -> "Pool":
        """Read items, of which so many are real."""
        volumes = load_volumes(items, settings.shape)
        return cls(volumes, labels_of_items(items), real)


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The held-out studies, cut to the findings (``scored``) that have enough cases."""

    volumes: Volumes
    truth: Truth
    scored: Int64[np.ndarray, " findings"]
    draws: Draws


@dataclass(frozen=True)
class Fits:
    """Where fits are kept: a cache, and what tells these items from others.

    All are of one ``classifier``.
    """

    cache: FeatureCache
    identity: str
    classifier: Classifier = RESNET


def refuse_leaks(train: Sequence[Item], test: Sequence[Item]) -> None:
    """Raise ``MismatchError`` where test items are synthetic or were trained on."""
    if any(item["synthetic"] for item in test):
        raise MismatchError("the test must hold real studies only; leave synthetic out")
    for key in ("sample_id", "image", "patient"):
        trained, tested = (
            {str(item[key]) for item in items if item.get(key) is not None}
            for items in (train, test)
        )
        if trained & tested:
            raise MismatchError(
                "some test studies or patients are also trained on; "
                "test on other patients"
            )


def held_out_of(items: Sequence[Item], settings: UtilitySettings) -> HeldOut:
    """Read the test; raises ``SettingsError`` where no finding has enough cases."""
    truth = labels_of_items(items)
    present = truth.sum(axis=0)
    enough = np.minimum(present, len(items) - present) >= settings.least_cases
    if not enough.any():
        raise SettingsError(
            f"no finding has {settings.least_cases} test studies with it and as many "
            f"without it among {len(items)}; test on more studies"
        )
    scored = np.flatnonzero(enough)
    draws = draw_patients(
        [str(item.get("patient", item["sample_id"])) for item in items],
        repeats=settings.repeats,
        draws=settings.draws,
        seed=settings.seed,
    )
    volumes = load_volumes(items, settings.shape)
    return HeldOut(volumes, truth[:, scored], scored, draws)


def score_arms(
    arms: Mapping[str, Places],
    pool: Pool,
    test: HeldOut,
    settings: UtilitySettings,
    fits: Fits | None = None,
) -> dict[str, Scores]:
    """Train every arm once a repeat and score the test.

    Each repeat has its own first weights and draws, the same for every arm. With
    ``fits`` what was trained once is read.
    """
    jobs = [(name, repeat) for name in arms for repeat in range(settings.repeats)]

    def work(job: tuple[str, int]) -> TestScores:
        name, repeat = job
        recipe = Recipe(
            steps=settings.steps,
            batch=settings.batch,
            learning_rate=settings.learning_rate,
            seed=derive_seed("arm", settings.seed, repeat),
            strength=STRENGTHS.get(name, 1),
        )
        return _fit(arms[name], pool, test, recipe, fits)

    with one_thread_each() as executor:
        done = tqdm(
            executor.map(work, jobs),
            total=len(jobs),
            desc="classifiers",
            unit="fit",
            disable=None,
        )
        tables = dict(zip(jobs, done, strict=True))
    return {
        name: np.stack([tables[name, repeat] for repeat in range(settings.repeats)])[
            :, :, test.scored
        ]
        for name in arms
    }


def _fit(
    places: Places, pool: Pool, test: HeldOut, recipe: Recipe, fits: Fits | None
) -> TestScores:
    def fitted() -> TestScores:
        classifier = RESNET if fits is None else fits.classifier
        volumes, labels = pool.volumes[places], pool.labels[places]
        return fit_and_score(volumes, labels, test.volumes, recipe, classifier)

    if fits is None:
        return fitted()
    told = [fits.classifier.name, places.tolist(), asdict(recipe)]
    key = ["fit", 1, fits.identity, *told]
    kept = fits.cache.get(key, lambda: {"scores": torch.from_numpy(fitted())})
    scores: np.ndarray = kept["scores"].numpy()
    return scores
