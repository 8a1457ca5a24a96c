"""What is trained and tested: the items, the held-out studies, a fit for each arm."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

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
from ctflow_fed.processes import Pool
from ctflow_fed.seeds import derive_seed

__all__ = [
    "Fits",
    "Fitter",
    "HeldOut",
    "Trained",
    "fit_elsewhere",
    "held_out_of",
    "jobs_of",
    "refuse_leaks",
    "score_arms",
]

TestScores = Float64[np.ndarray, "tested findings"]

Job = tuple[str, int]
"""An arm, and which of its trainings."""

Done = TypeVar("Done")


@dataclass(frozen=True, eq=False)
class Trained:
    """Everything that an arm may be trained on, real items first."""

    volumes: Volumes
    labels: Labels
    real: int

    @classmethod
    def of(
        cls, items: Sequence[Item], real: int, settings: UtilitySettings
    ) -> "Trained":
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


@dataclass(frozen=True, eq=False)
class Fitter:
    """Trains the classifiers of a trial and lets each score the test.

    Each repeat has its own first weights and draws, the same for every arm. With
    ``fits`` what was trained once is read.
    """

    arms: Mapping[str, Places]
    trained: Trained
    test: HeldOut
    settings: UtilitySettings
    fits: Fits | None = None

    @classmethod
    def of(
        cls,
        arms: Mapping[str, Places],
        items: Sequence[Item],
        real: int,
        test: Sequence[Item],
        settings: UtilitySettings,
        fits: Fits | None = None,
    ) -> "Fitter":
        """Read what is trained and tested on, in whichever process that is to be."""
        tested = held_out_of(test, settings)
        return cls(arms, Trained.of(items, real, settings), tested, settings, fits)

    def __call__(self, jobs: Sequence[Job]) -> list[TestScores]:
        """Train the classifiers of some jobs, each on one thread."""
        with one_thread_each() as executor:
            return list(executor.map(self.scores, jobs))

    def scores(self, job: Job) -> TestScores:
        """Train one arm once; return what its classifier says of the test."""
        arm, repeat = job
        recipe = Recipe(
            steps=self.settings.steps,
            batch=self.settings.batch,
            learning_rate=self.settings.learning_rate,
            seed=derive_seed("arm", self.settings.seed, repeat),
            strength=STRENGTHS.get(arm, 1),
        )
        places = self.arms[arm]
        if self.fits is None:
            return self._fitted(places, recipe, RESNET)
        classifier = self.fits.classifier
        told = [classifier.name, places.tolist(), asdict(recipe)]
        kept = self.fits.cache.get(
            ["fit", 1, self.fits.identity, *told],
            lambda: {
                "scores": torch.from_numpy(self._fitted(places, recipe, classifier))
            },
        )
        scores: np.ndarray = kept["scores"].numpy()
        return scores

    def _fitted(
        self, places: Places, recipe: Recipe, classifier: Classifier
    ) -> TestScores:
        volumes, labels = self.trained.volumes[places], self.trained.labels[places]
        return fit_and_score(volumes, labels, self.test.volumes, recipe, classifier)


def jobs_of(arms: Iterable[str], settings: UtilitySettings) -> list[Job]:
    """Return every arm with every repeat."""
    return [(name, repeat) for name in arms for repeat in range(settings.repeats)]


def score_arms(fitter: Fitter) -> dict[str, Scores]:
    """Train every arm once a repeat, side by side, and score the test."""
    jobs = jobs_of(fitter.arms, fitter.settings)
    with one_thread_each() as executor:
        done = executor.map(fitter.scores, jobs)
        tables = dict(zip(jobs, _counted(done, len(jobs)), strict=True))
    return {
        name: np.stack([tables[job] for job in jobs if job[0] == name])[
            :, :, fitter.test.scored
        ]
        for name in fitter.arms
    }


def fit_elsewhere(
    pool: Pool, make_fitter: Callable[[], Fitter], jobs: Sequence[Job]
) -> None:
    """Train by the workers of a pool, who keep the fits where `score_arms` finds them.

    What is lost with a worker is left to `score_arms`.
    """
    done = pool.run(make_fitter, [(job,) for job in jobs])
    deque(_counted(done, len(jobs)), maxlen=0)


def _counted(done: Iterable[Done], count: int) -> Iterator[Done]:
    yield from tqdm(done, "classifiers", count, unit="fit", disable=None)
