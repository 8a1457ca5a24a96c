"""Does a classifier get better when synthetic volumes join scarce real ones?

Three arms, trained with the same number of steps from the same first weights:

    real               the scarce real studies
    duplicated         the same, and as many copies of them as there are synthetic ones
    synthetic_added    the same, and the synthetic ones

All are tested on a hospital that neither the generator nor any arm has seen. The
control is ``duplicated``: its labels are balanced much as those of ``synthetic_added``,
but nothing in it is new; `arms_of` says how.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from tqdm import tqdm

from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.errors import MismatchError, SettingsError
from ctflow_fed.evaluation.arms import ARMS, Places, arms_of
from ctflow_fed.evaluation.classifier import Recipe, fit_and_score
from ctflow_fed.evaluation.results import (
    ArmResult,
    Comparison,
    FindingScore,
    UtilityResult,
    UtilitySettings,
)
from ctflow_fed.evaluation.scores import (
    Draws,
    Scores,
    Truth,
    areas,
    draw_patients,
    interval,
    resampled_auroc,
)
from ctflow_fed.evaluation.volumes import (
    Item,
    Labels,
    Volumes,
    labels_of_items,
    load_volumes,
)
from ctflow_fed.machine import one_thread_each
from ctflow_fed.seeds import derive_seed

__all__ = ["measure_utility"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Pool:
    """Everything that an arm may be trained on, real items first."""

    volumes: Volumes
    labels: Labels
    real: int


@dataclass(frozen=True, eq=False)
class _Test:
    """The held-out studies, cut to the findings (``scored``) that have enough cases."""

    volumes: Volumes
    truth: Truth
    scored: Int64[np.ndarray, " findings"]
    draws: Draws


def measure_utility(
    real: Sequence[Item],
    synthetic: Sequence[Item],
    test: Sequence[Item],
    settings: UtilitySettings,
) -> UtilityResult:
    """Train the three arms and test them on ``test``.

    Raises `MismatchError` if a test item is synthetic or was trained on, or if its
    ``patient`` was, where items name one; `SettingsError` if there are no items of a
    kind, or if no finding has enough cases in the test.
    """
    if not (real and synthetic):
        raise SettingsError(
            "the utility test needs real and synthetic items, "
            f"got {len(real)} and {len(synthetic)}"
        )
    items = [*real, *synthetic]
    _refuse_leaks(items, test)
    tested = _test_of(test, settings)
    labels = labels_of_items(items)
    arms = arms_of(labels, len(real), seed=settings.seed)
    pool = _Pool(load_volumes(items, settings.shape), labels, len(real))
    scores = _score_arms(arms, pool, tested, settings)
    results = {
        name: _arm_result(name, arms[name], pool, tested, scores[name]) for name in ARMS
    }
    truth = labels_of_items(test)
    return UtilityResult(
        arms=tuple(results.values()),
        comparisons=_comparisons(results, scores, tested),
        tested=len(test),
        cases={FINDINGS[place]: int(truth[:, place].sum()) for place in tested.scored},
        unscored=tuple(
            name for place, name in enumerate(FINDINGS) if place not in tested.scored
        ),
        settings=settings,
    )


def _refuse_leaks(train: Sequence[Item], test: Sequence[Item]) -> None:
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


def _test_of(items: Sequence[Item], settings: UtilitySettings) -> _Test:
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
    return _Test(volumes, truth[:, scored], scored, draws)


def _score_arms(
    arms: Mapping[str, Places], pool: _Pool, test: _Test, settings: UtilitySettings
) -> dict[str, Scores]:
    """Train every arm once a repeat and score the test.

    Each repeat has its own first weights and draws, the same for every arm.
    """
    jobs = [(name, repeat) for name in ARMS for repeat in range(settings.repeats)]

    def work(job: tuple[str, int]) -> Float64[np.ndarray, "tested findings"]:
        name, repeat = job
        recipe = Recipe(
            steps=settings.steps,
            batch=settings.batch,
            learning_rate=settings.learning_rate,
            seed=derive_seed("arm", settings.seed, repeat),
        )
        places = arms[name]
        return fit_and_score(
            pool.volumes[places], pool.labels[places], test.volumes, recipe
        )

    with one_thread_each() as executor:
        fits = tqdm(
            executor.map(work, jobs),
            total=len(jobs),
            desc="classifiers",
            unit="fit",
            disable=None,
        )
        tables = dict(zip(jobs, fits, strict=True))
    return {
        name: np.stack([tables[name, repeat] for repeat in range(settings.repeats)])[
            :, :, test.scored
        ]
        for name in ARMS
    }


def _arm_result(
    name: str, places: Places, pool: _Pool, test: _Test, scores: Scores
) -> ArmResult:
    auroc, auprc = areas(scores, test.truth)
    resampled = resampled_auroc(scores, test.truth, test.draws)
    result = ArmResult(
        name=name,
        items=len(places),
        synthetic=int((places >= pool.real).sum()),
        auroc=interval(float(auroc.mean()), resampled),
        auprc=float(auprc.mean()),
        auroc_of_repeats=tuple(
            float(areas(scores[[repeat]], test.truth)[0].mean())
            for repeat in range(len(scores))
        ),
        findings=tuple(
            FindingScore(
                FINDINGS[place],
                int(pool.labels[places][:, place].sum()),
                float(auroc[row]),
                float(auprc[row]),
            )
            for row, place in enumerate(test.scored)
        ),
    )
    log.info("arm %s: macro AUROC %.3f", name, result.auroc.value)
    return result


def _comparisons(
    results: Mapping[str, ArmResult], scores: Mapping[str, Scores], test: _Test
) -> tuple[Comparison, ...]:
    """Compare the synthetic arm with the others, draw by draw."""
    arm = "synthetic_added"
    resampled = {
        name: resampled_auroc(tables, test.truth, test.draws)
        for name, tables in scores.items()
    }
    return tuple(
        Comparison(
            arm,
            reference,
            interval(
                results[arm].auroc.value - results[reference].auroc.value,
                resampled[arm] - resampled[reference],
            ),
        )
        for reference in ARMS
        if reference != arm
    )
