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

from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.errors import SettingsError
from ctflow_fed.evaluation.arms import ARMS, Places, arms_of
from ctflow_fed.evaluation.results import (
    ArmResult,
    Comparison,
    FindingScore,
    UtilityResult,
    UtilitySettings,
)
from ctflow_fed.evaluation.scores import (
    Scores,
    areas,
    interval,
    resampled_auroc,
)
from ctflow_fed.evaluation.trial import (
    Fitter,
    HeldOut,
    Trained,
    refuse_leaks,
    score_arms,
)
from ctflow_fed.evaluation.volumes import Item, labels_of_items

__all__ = ["measure_utility"]

log = logging.getLogger(__name__)


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
    refuse_leaks(items, test)
    every = arms_of(labels_of_items(items), len(real), seed=settings.seed)
    arms = {name: every[name] for name in ARMS}
    fitter = Fitter.of(arms, items, len(real), test, settings)
    trained, tested = fitter.trained, fitter.test
    scores = score_arms(fitter)
    results = {
        name: _arm_result(name, arms[name], trained, tested, scores[name])
        for name in ARMS
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


def _arm_result(
    name: str, places: Places, trained: Trained, test: HeldOut, scores: Scores
) -> ArmResult:
    auroc, auprc = areas(scores, test.truth)
    resampled = resampled_auroc(scores, test.truth, test.draws)
    result = ArmResult(
        name=name,
        items=len(places),
        synthetic=int((places >= trained.real).sum()),
        auroc=interval(float(auroc.mean()), resampled),
        auprc=float(auprc.mean()),
        auroc_of_repeats=tuple(
            float(areas(scores[[repeat]], test.truth)[0].mean())
            for repeat in range(len(scores))
        ),
        findings=tuple(
            FindingScore(
                FINDINGS[place],
                int(trained.labels[places][:, place].sum()),
                float(auroc[row]),
                float(auprc[row]),
            )
            for row, place in enumerate(test.scored)
        ),
    )
    log.info("arm %s: macro AUROC %.3f", name, result.auroc.value)
    return result


def _comparisons(
    results: Mapping[str, ArmResult], scores: Mapping[str, Scores], test: HeldOut
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
